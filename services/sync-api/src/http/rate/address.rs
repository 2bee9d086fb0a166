//! A connection's peer and what proxies say of it in, the address that a caller is known by out.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::http::header::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// A subscriber is given a whole /64 of IPv6 and may use any address of it.
const SUBSCRIBER: u128 = !0 << 64;

/// Where a caller calls from: an IPv4 address, or a /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(IpAddr);

impl Address {
    /// The peer's address, unless a trusted proxy says for whom it asks: then the right-most address of X-Forwarded-For that is
    /// not itself trusted.
    ///
    /// Each proxy adds on the right whom it heard, so from the right on the entries are as true as those who wrote them. What
    /// cannot be read was written by nobody who is trusted: the last proxy that is, is the caller then.
    pub fn of_caller(peer: Option<SocketAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
        let is_trusted = |ip: &IpAddr| trusted.iter().any(|network| network.contains(ip));
        let mut caller = peer;
        if is_trusted(&caller) {
            let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).collect();
            let entries = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
            for entry in entries {
                let Some(before) = read(entry) else { break };
                caller = before;
                if !is_trusted(&caller) {
                    break;
                }
            }
        }
        Address::of(caller)
    }

    fn of(ip: IpAddr) -> Self {
        Address(match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & SUBSCRIBER)),
        })
    }

    pub fn ip(self) -> IpAddr {
        self.0
    }
}

/// An address, with its port or without; some proxies write `[::1]:80`.
fn read(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip())).ok()?;
    Some(IpAddr::to_canonical(&ip))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    /// Who calls, as `peer` forwards with these header lines; 10.0.0.0/8 and fd00::/8 are trusted.
    fn caller(peer: &str, lines: &[&'static str]) -> String {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|n| n.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        Address::of_caller(Some(peer), &headers, &trusted).ip().to_string()
    }

    #[test]
    fn a_stranger_who_claims_to_forward_is_not_believed() {
        assert_eq!(caller("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn the_right_most_address_that_is_not_trusted_is_the_caller() {
        assert_eq!(caller("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(caller("10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        // What the caller itself wrote stands further left.
        assert_eq!(caller("10.0.0.1", &["203.0.113.9, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(caller("10.0.0.1", &["203.0.113.9,192.0.2.1 , 10.0.0.2"]), "192.0.2.1");
        assert_eq!(caller("10.0.0.1", &["203.0.113.9", "192.0.2.1", "10.0.0.2"]), "192.0.2.1");
        assert_eq!(caller("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(caller("fd00::1", &["192.0.2.1:8080"]), "192.0.2.1");
        assert_eq!(caller("10.0.0.1", &["[2001:db8::1]:80"]), "2001:db8::");
        assert_eq!(caller("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::");
    }

    #[test]
    fn what_cannot_be_read_leaves_the_last_trusted_proxy() {
        for garbage in ["unknown", "", "192.0.2", "192.0.2.1 192.0.2.2", "_hidden", "ä"] {
            assert_eq!(caller("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage}");
        }
        assert_eq!(caller("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(caller("10.0.0.1", &["192.0.2.1,"]), "10.0.0.1");
    }

    #[test]
    fn all_of_a_subscribers_addresses_are_one() {
        assert_eq!(caller("2001:db8:1:2:3:4:5:6", &[]), "2001:db8:1:2::");
        assert_eq!(caller("2001:db8:1:2:ffff::", &[]), "2001:db8:1:2::");
        // An IPv4 caller of a socket for both is the same one, and so is a proxy.
        assert_eq!(caller("::ffff:192.0.2.1", &[]), "192.0.2.1");
        assert_eq!(caller("::ffff:10.0.0.1", &["::ffff:192.0.2.1"]), "192.0.2.1");
    }
}
