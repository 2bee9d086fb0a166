//! A machine and an admin port in, what tells this process from all others out.

use std::{fs, net::SocketAddr};

/// Who this process is among the ingesters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its own alone, also among those that ran here before.
    pub id: String,
    /// For people: host and admin port.
    pub name: String,
    /// Where it listens, in which network of which booted kernel; `-` where that cannot be told. A port has one listener, so
    /// whoever had this seat before is dead, and nobody need wait until its lease ends.
    pub seat: String,
}

impl Identity {
    /// `admin` is where the process listens already.
    pub fn new(admin: SocketAddr) -> Self {
        let host = read("/proc/sys/kernel/hostname").or_else(|| std::env::var("HOSTNAME").ok());
        let host = host.filter(|host| is_plain(host)).unwrap_or_else(|| "ingester".to_owned());
        let network = fs::read_link("/proc/self/ns/net").ok();
        let place = || {
            let network = network.as_ref()?.to_str()?;
            Some(format!("{}/{network}/{admin}", read("/proc/sys/kernel/random/boot_id")?))
        };
        Identity {
            id: format!("{:016x}", rand::random::<u64>()),
            name: format!("{host}:{}", admin.port()),
            seat: place().filter(|seat| is_plain(seat)).unwrap_or_else(|| "-".to_owned()),
        }
    }
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Neither a space nor anything that a terminal would take for a command.
fn is_plain(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_that_sat_in_one_place_after_another_share_the_seat_alone() {
        let admin = SocketAddr::from(([127, 0, 0, 1], 9091));
        let (one, two) = (Identity::new(admin), Identity::new(admin));
        assert_ne!(one.id, two.id);
        assert_eq!((&one.seat, &one.name), (&two.seat, &two.name));
        assert!(one.name.ends_with(":9091"));
        let other = Identity::new(SocketAddr::from(([127, 0, 0, 1], 9092)));
        #[cfg(target_os = "linux")]
        assert_ne!(one.seat, other.seat);
        assert_ne!(one.name, other.name);
    }
}
