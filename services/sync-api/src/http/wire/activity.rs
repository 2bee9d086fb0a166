//! What the HTTP side of a connection is doing, told to the side that waits for its bytes.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;
use tokio::time::Instant;

/// Of one connection; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Activity(Rc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: Cell<u64>,
    ended: Cell<u64>,
    last: Cell<Option<Instant>>,
}

/// A request that is being answered; it ends with this value.
#[derive(Debug)]
pub struct Busy(Activity);

impl Activity {
    /// A request has arrived.
    pub fn begin(&self) -> Busy {
        self.0.begun.set(self.0.begun.get() + 1);
        Busy(self.clone())
    }

    /// How many requests have arrived.
    pub fn begun(&self) -> u64 {
        self.0.begun.get()
    }

    /// Whether one of them is being answered.
    pub fn is_busy(&self) -> bool {
        self.0.begun.get() != self.0.ended.get()
    }

    /// For how long none has been, since the last one ended.
    pub fn idle(&self) -> Option<Duration> {
        self.0.last.get().filter(|_| !self.is_busy()).map(|last| last.elapsed())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let ended = &self.0.0.ended;
        ended.set(ended.get() + 1);
        self.0.0.last.set(Some(Instant::now()));
    }
}

/// A body whose request is being answered until the connection has taken all of it.
pub struct Answering {
    body: BoxBody,
    _busy: Option<Busy>,
}

impl Answering {
    pub fn new(body: BoxBody, busy: Option<Busy>) -> Self {
        Answering { body, _busy: busy }
    }
}

impl MessageBody for Answering {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}
