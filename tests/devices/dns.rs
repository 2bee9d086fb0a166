//! A name's addresses in, answers to whoever asks over UDP out, as a container engine's DNS server gives them.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{net::UdpSocket, task::AbortHandle};

/// Answers every question for an IPv4 address with the same addresses, whatever the name. It ends when it is dropped.
pub struct Dns {
    address: SocketAddr,
    serving: AbortHandle,
}

/// The length of the header, before the question.
const HEADER: usize = 12;
/// An answer, recursion available, no error.
const FLAGS: u16 = 0x8180;
const TYPE_A: u16 = 1;

impl Dns {
    pub async fn start(found: Vec<Ipv4Addr>) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let serving = tokio::spawn(serve(socket, found)).abort_handle();
        Self { address, serving }
    }

    /// Whom to ask.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(socket: UdpSocket, found: Vec<Ipv4Addr>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { return };
        if let Some(answer) = answer(&buffer[..length], &found) {
            socket.send_to(&answer, client).await.ok();
        }
    }
}

/// The answer to a query, if it is one.
fn answer(query: &[u8], addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let name = query.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    // The name's end, its type and its class.
    let question = query.get(HEADER..HEADER + name + 5)?;
    let kind = u16::from_be_bytes(question.get(name + 1..name + 3)?.try_into().ok()?);
    let addresses = if kind == TYPE_A { addresses } else { &[] };
    let mut answer = query.get(..2)?.to_vec();
    for number in [FLAGS, 1, u16::try_from(addresses.len()).ok()?, 0, 0] {
        answer.extend(number.to_be_bytes());
    }
    answer.extend(question);
    for address in addresses {
        // The name again by its place, type and class, 600 seconds, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
