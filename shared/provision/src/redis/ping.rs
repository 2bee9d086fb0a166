//! A port in, whether the Redis behind it serves commands out.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Logs in with a password, or a user and a password, where there are any, and sends a PING. A server that is still
/// loading its data says so instead of `+PONG`.
pub(super) async fn answers(port: u16, log_in: &[&str]) -> bool {
    matches!(timeout(Duration::from_secs(1), ping(port, log_in)).await, Ok(Ok(true)))
}

async fn ping(port: u16, log_in: &[&str]) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut request = String::new();
    let mut expected = String::new();
    if !log_in.is_empty() {
        request += &format!("*{}\r\n$4\r\nAUTH\r\n", 1 + log_in.len());
        for word in log_in {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        expected += "+OK\r\n";
    }
    request += "*1\r\n$4\r\nPING\r\n";
    expected += "+PONG\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer == expected.as_bytes())
}
