//! A tenant's connection settings in, a logged-in replication connection out.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::{
    authentication::{md5_hash, sasl},
    message::{backend::Message, frontend},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    error::WalError,
    frame::{FrameReader, Halves, Socket, parse, refusal},
};

/// Connects, negotiates TLS as the URL's `sslmode` says, and logs in with `replication=database`.
///
/// SCRAM runs without channel binding; with TLS the server's certificate has been verified. The reader may
/// hold messages that follow the login.
pub async fn log_in(
    config: &Config,
    mut tls: MakeRustlsConnect,
    application: &str,
    options: &str,
) -> Result<Halves, WalError> {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        _ => return Err(WalError::Incomplete("TCP host")),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let mut plain = TcpStream::connect((host.as_str(), port)).await?;
    plain.set_nodelay(true)?;
    notice_dead_peers(&plain)?;
    let socket: Box<dyn Socket> = match config.get_ssl_mode() {
        SslMode::Disable => Box::new(plain),
        mode => {
            let mut request = BytesMut::new();
            frontend::ssl_request(&mut request);
            plain.write_all(&request).await?;
            match plain.read_u8().await? {
                b'S' => {
                    let connector = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, &host)
                        .map_err(std::io::Error::other)?;
                    Box::new(connector.connect(plain).await.map_err(std::io::Error::other)?)
                }
                b'N' if mode != SslMode::Require => Box::new(plain),
                b'N' => return Err(WalError::NoTls),
                _ => return Err(WalError::Protocol("an answer to the TLS request that is neither S nor N")),
            }
        }
    };
    let (read, mut writer) = tokio::io::split(socket);
    let mut reader = FrameReader::new(read);
    authenticate(&mut reader, &mut writer, config, application, options).await?;
    Ok((reader, writer))
}

/// A peer that vanished without a word is noticed within half a minute, also while nothing is being sent.
fn notice_dead_peers(stream: &TcpStream) -> Result<(), WalError> {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5));
    socket.set_tcp_keepalive(&probes.with_retries(3))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(25)))?;
    Ok(())
}

async fn authenticate(
    reader: &mut FrameReader<ReadHalf<Box<dyn Socket>>>,
    writer: &mut WriteHalf<Box<dyn Socket>>,
    config: &Config,
    application: &str,
    options: &str,
) -> Result<(), WalError> {
    let user = config.get_user().ok_or(WalError::Incomplete("user"))?;
    let database = config.get_dbname().ok_or(WalError::Incomplete("database"))?;
    let password = config.get_password().unwrap_or_default();
    let mut out = BytesMut::new();
    let parameters = [
        ("user", user),
        ("database", database),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
        ("application_name", application),
        ("options", options),
    ];
    frontend::startup_message(parameters, &mut out)?;
    writer.write_all(&out).await?;
    let mut scram = None;
    loop {
        out.clear();
        match parse(reader.next().await?)? {
            Message::AuthenticationOk => break,
            Message::AuthenticationCleartextPassword => frontend::password_message(password, &mut out)?,
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(user.as_bytes(), password, body.salt());
                frontend::password_message(hash.as_bytes(), &mut out)?;
            }
            Message::AuthenticationSasl(_) => {
                let first = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
                frontend::sasl_initial_response(sasl::SCRAM_SHA_256, first.message(), &mut out)?;
                scram = Some(first);
            }
            Message::AuthenticationSaslContinue(body) => {
                let exchange = scram.as_mut().ok_or(WalError::Protocol("SASL data before its start"))?;
                exchange.update(body.data())?;
                frontend::sasl_response(exchange.message(), &mut out)?;
            }
            Message::AuthenticationSaslFinal(body) => {
                scram.as_mut().ok_or(WalError::Protocol("SASL end before its start"))?.finish(body.data())?;
            }
            Message::ErrorResponse(body) => return Err(refusal(&body)),
            Message::NoticeResponse(_) => continue,
            _ => return Err(WalError::Authentication("an authentication method")),
        }
        writer.write_all(&out).await?;
        writer.flush().await?;
    }
    Ok(())
}
