//! A port in, whether the Redis behind it serves commands out.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Logs in and sends a PING. A server that is still loading its data says so instead of `+PONG`.
pub(super) async fn answers(port: u16, password: Option<&str>) -> bool {
    matches!(timeout(Duration::from_secs(1), ping(port, password)).await, Ok(Ok(true)))
}

async fn ping(port: u16, password: Option<&str>) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut request = String::new();
    let mut expected = String::new();
    if let Some(password) = password {
        request += &format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n", password.len());
        expected += "+OK\r\n";
    }
    request += "*1\r\n$4\r\nPING\r\n";
    expected += "+PONG\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer == expected.as_bytes())
}
