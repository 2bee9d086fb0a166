//! The server's event stream in, hints and the reason of its end out.

use std::{collections::VecDeque, time::Duration};

use futures::stream::{self, BoxStream, StreamExt};
use reqwest::{Response, StatusCode, header};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{
    event::StreamEnd,
    sse::{Parser, ServerEvent},
};
use crate::{error::Error, http, session::Session};

/// How long the shell waits for signs of life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the request to the greeting. What takes longer holds the stream back.
    pub greeting: Duration,
    /// Between two bytes: pings come every 15 s, and two may be late.
    pub silence: Duration,
    /// After the greeting, until the stream counts as one that works.
    pub steady: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            greeting: Duration::from_secs(10),
            silence: Duration::from_secs(40),
            steady: Duration::from_secs(20),
        }
    }
}

/// What a stream says to its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Connected,
    /// There is something to fetch; with the id to go on from.
    Hint,
    Steady,
    /// The newest id, to go on from; none where the server cannot go on from the earlier one.
    Id(Option<String>),
    Ended(StreamEnd),
}

struct Listener {
    session: std::sync::Arc<Session>,
    last_event_id: Option<String>,
    patience: Patience,
    place: Place,
    heard: VecDeque<Heard>,
}

enum Place {
    Calling,
    Open(Box<Open>),
    Over,
}

struct Open {
    response: Response,
    parser: Parser,
    deadline: Instant,
    greeted: Option<Instant>,
    steady: bool,
}

/// Opens the stream and listens; the last thing heard is its end. Dropping it closes the connection.
pub(super) fn listen(
    session: std::sync::Arc<Session>,
    last_event_id: Option<String>,
    patience: Patience,
) -> BoxStream<'static, Heard> {
    let listener =
        Listener { session, last_event_id, patience, place: Place::Calling, heard: VecDeque::new() };
    stream::unfold(listener, async |mut listener| {
        let heard = listener.next().await?;
        Some((heard, listener))
    })
    .boxed()
}

impl Listener {
    async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            let end = match &mut self.place {
                Place::Over => return None,
                Place::Calling => match self.call().await {
                    Ok(open) => {
                        self.place = Place::Open(Box::new(open));
                        continue;
                    }
                    Err(end) => end,
                },
                Place::Open(open) => match open.listen(self.patience, &mut self.heard).await {
                    Ok(()) => continue,
                    Err(end) => end,
                },
            };
            self.place = Place::Over;
            self.heard.push_back(Heard::Ended(end));
        }
    }

    async fn call(&self) -> Result<Open, StreamEnd> {
        let deadline = Instant::now() + self.patience.greeting;
        let answer = self.session.http.events(&self.session.enrollment, self.last_event_id.as_deref());
        let response = match timeout_at(deadline, answer).await {
            Err(_) => return Err(StreamEnd::Unusable),
            Ok(Err(_)) => return Err(StreamEnd::Lost { retry: Duration::ZERO }),
            Ok(Ok(response)) => response,
        };
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if response.status() == StatusCode::OK
            && kind
                .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
        {
            return Ok(Open { response, parser: Parser::default(), deadline, greeted: None, steady: false });
        }
        let status = response.status();
        match timeout_at(deadline, http::refused(response)).await {
            Ok(Error::Unauthorized(_)) => Err(StreamEnd::Unauthorized),
            Ok(Error::Retry { after: Some(after), .. }) => Err(StreamEnd::Busy { after: Some(after) }),
            Ok(Error::Retry { .. }) if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => {
                Err(StreamEnd::Busy { after: None })
            }
            Ok(Error::Offline(_)) | Err(_) => Err(StreamEnd::Lost { retry: Duration::ZERO }),
            Ok(_) => Err(StreamEnd::Unusable),
        }
    }
}

#[derive(Deserialize)]
struct Draining {
    retry_ms: u64,
}

impl Open {
    /// Waits for the next bytes and adds what they say.
    async fn listen(&mut self, patience: Patience, heard: &mut VecDeque<Heard>) -> Result<(), StreamEnd> {
        let retry = self.parser.retry.unwrap_or_default();
        let bytes = match timeout_at(self.deadline, self.response.chunk()).await {
            Err(_) if self.greeted.is_some() => return Err(StreamEnd::PingMissed { retry }),
            Err(_) => return Err(StreamEnd::Unusable),
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None) | Err(_)) => return Err(StreamEnd::Lost { retry }),
        };
        let known = self.parser.last_event_id.clone();
        let mut events = Vec::new();
        self.parser.push(&bytes, &mut events).map_err(|_| StreamEnd::Unusable)?;
        if self.parser.last_event_id != known {
            heard.push_back(Heard::Id(self.parser.last_event_id.clone()));
        }
        for event in events {
            self.take(event, heard)?;
        }
        let Some(greeted) = self.greeted else { return Ok(()) };
        self.deadline = Instant::now() + patience.silence;
        if !self.steady && greeted.elapsed() >= patience.steady {
            self.steady = true;
            heard.push_back(Heard::Steady);
        }
        Ok(())
    }

    fn take(&mut self, event: ServerEvent, heard: &mut VecDeque<Heard>) -> Result<(), StreamEnd> {
        match event.name.as_str() {
            "connected" => {
                self.greeted.get_or_insert_with(Instant::now);
                heard.push_back(Heard::Connected);
            }
            "draining" => {
                let wish = serde_json::from_str(&event.data)
                    .map_or(Duration::ZERO, |Draining { retry_ms }| Duration::from_millis(retry_ms));
                return Err(StreamEnd::Draining { retry: wish });
            }
            "resync" => heard.extend([Heard::Id(None), Heard::Hint]),
            // Whatever a newer server says: there is no harm in looking.
            _ => heard.push_back(Heard::Hint),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
