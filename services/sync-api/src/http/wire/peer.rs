//! A connection that was accepted in, one that ends when its peer is gone without a word out.

use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::SockRef;

/// Gives the connection up once something sent on it was not acknowledged for so long.
///
/// Without this it takes the operating system a quarter of an hour, for which a phone that changed its network would keep the
/// place of its old stream, and count as being there.
pub fn give_up_after(connection: &TcpStream, silence: Duration) {
    if let Err(error) = SockRef::from(connection).set_tcp_user_timeout(Some(silence)) {
        tracing::debug!(%error, "a connection whose peer goes away in silence will stay for long");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_accepted_connection_is_given_up_in_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        give_up_after(&client, Duration::from_secs(45));
        assert_eq!(SockRef::from(&client).tcp_user_timeout().unwrap(), Some(Duration::from_secs(45)));
    }
}
