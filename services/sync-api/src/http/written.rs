//! An answer in, its pieces out, and word once the connection has taken the last of them.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

/// What is handed over at a time. The connection takes more only when little is left of what it has.
const PIECE: usize = 8 * 1024;

/// A body that says when all of it was taken; nothing is said of one that broke off.
pub struct Written<F> {
    rest: Bytes,
    done: Option<F>,
}

impl<F: FnOnce() + Unpin> Written<F> {
    pub fn new(body: String, done: F) -> Self {
        Written { rest: body.into(), done: Some(done) }
    }
}

impl<F: FnOnce() + Unpin> MessageBody for Written<F> {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.rest.is_empty() {
            if let Some(done) = self.done.take() {
                done();
            }
            return Poll::Ready(None);
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(self.rest.split_to(piece))))
    }
}
