//! Bytes of the connection in, whole protocol messages out.

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::{ErrorResponseBody, Message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};

use super::error::WalError;

/// A connection with or without TLS.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// The two halves of a logged-in connection.
pub type Halves = (FrameReader<ReadHalf<Box<dyn Socket>>>, WriteHalf<Box<dyn Socket>>);

/// Reads messages from one half of a connection.
#[derive(Debug)]
pub struct FrameReader<R> {
    half: R,
    buffer: BytesMut,
}

/// PostgreSQL's own limit of a message; a larger length is noise.
const LARGEST: usize = 1 << 30;

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(half: R) -> Self {
        FrameReader { half, buffer: BytesMut::with_capacity(64 << 10) }
    }

    /// The next message with its tag and length; cancelling loses nothing.
    pub async fn next(&mut self) -> Result<BytesMut, WalError> {
        loop {
            if let Some(whole) = self.whole()? {
                return Ok(self.buffer.split_to(whole));
            }
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Err(WalError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The length of the message at the front, `None` until all of it is there.
    fn whole(&mut self) -> Result<Option<usize>, WalError> {
        let mut header = match self.buffer.get(1..5) {
            Some(length) => length,
            None => return Ok(None),
        };
        let length =
            usize::try_from(header.get_i32()).map_err(|_| WalError::Protocol("a negative length"))?;
        if !(4..=LARGEST).contains(&length) {
            return Err(WalError::Protocol("an impossible message length"));
        }
        if self.buffer.len() > length {
            return Ok(Some(1 + length));
        }
        self.buffer.reserve(1 + length - self.buffer.len());
        Ok(None)
    }
}

/// Parses a message that the postgres-protocol crate knows.
pub fn parse(mut frame: BytesMut) -> Result<Message, WalError> {
    Message::parse(&mut frame)?.ok_or(WalError::Protocol("an incomplete message"))
}

/// What an ErrorResponse says.
pub fn refusal(body: &ErrorResponseBody) -> WalError {
    use fallible_iterator::FallibleIterator;

    let (mut code, mut message) = (String::new(), String::new());
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = text(),
            b'M' => message = text(),
            _ => {}
        }
    }
    WalError::Server { code, message }
}
