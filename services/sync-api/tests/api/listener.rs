//! A request for events in, the events one by one out, read by a parser of the standard.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use eventsource_stream::{Event, EventStreamError, Eventsource};
use futures::{Stream, StreamExt};
use posduif_changelog::{Timeouts, connect::connect};
use posduif_runtime::config::Config;
use posduif_testkit::Servers;
use redis::aio::MultiplexedConnection;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Api, By, Phone, SECRET, serve};

/// What would have come by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Listener {
    events: Pin<Box<dyn Stream<Item = Result<Event, EventStreamError<reqwest::Error>>> + Send>>,
    /// Of the newest event.
    pub id: String,
    /// What `connected` said.
    pub cursor: String,
}

impl Listener {
    /// Opens a stream and waits until it is connected.
    pub async fn open(request: RequestBuilder) -> Self {
        let response = timeout(PATIENCE, request.send()).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        Self::of(response).await
    }

    pub async fn of(response: Response) -> Self {
        let events = Box::pin(response.bytes_stream().eventsource());
        let mut listener = Listener { events, id: String::new(), cursor: String::new() };
        let connected = listener.expect("connected").await;
        assert_eq!((&connected["type"], &connected["mode"]), (&"connected".into(), &"wal".into()));
        listener.cursor = connected["cursor"].as_str().unwrap().to_owned();
        assert_eq!(listener.id, listener.cursor);
        listener
    }

    /// The next event's name and data; `None` once the stream has ended.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        let next = timeout(PATIENCE, self.events.next()).await.expect("an event in time");
        let event = next?.ok()?;
        self.id = event.id;
        Some((event.event, serde_json::from_str(&event.data).unwrap()))
    }

    /// The data of the next event, which has this name.
    pub async fn expect(&mut self, name: &str) -> Value {
        let (found, data) = self.next().await.expect("an event before the end");
        assert_eq!(found, name, "{data}");
        data
    }

    /// The next event is about this message.
    pub async fn expect_message(&mut self, id: &str) {
        let data = self.expect("message").await;
        assert_eq!(data, serde_json::json!({"type": "new_message", "message_id": id}));
    }

    /// Waits for the end, whatever comes before it, and returns that.
    pub async fn rest(&mut self) -> Vec<(String, Value)> {
        let mut rest = Vec::new();
        while let Some(event) = self.next().await {
            rest.push(event);
        }
        rest
    }
}

impl Api {
    pub fn live(&self, phone: &Phone) -> RequestBuilder {
        self.get(&format!("/sse/mobile/{}", phone.id)).by(phone)
    }

    pub fn live_with(&self, phone: &Phone, query: &str) -> RequestBuilder {
        self.get(&format!("/sse/mobile/{}?{query}", phone.id)).by(phone)
    }

    pub async fn listen(&self, phone: &Phone) -> Listener {
        Listener::open(self.live(phone)).await
    }

    /// A connection of the test's own.
    pub async fn redis_of(&self, servers: &Servers) -> MultiplexedConnection {
        connect(servers.redis_url(), Timeouts::default()).await.unwrap()
    }

    /// Another replica for the same tenant, in this process.
    pub fn replica(&self, servers: &Servers, sections: &str) -> Replica {
        let yaml = format!(
            "tenants: [{{url: '{}'}}]\nredis: {{url: '{}'}}\nauth: {{jwt_secret: '{SECRET}'}}\n{sections}",
            self.database.url(),
            servers.redis_url_of(posduif_testkit::API),
        );
        let (base, shutdown, _) = serve(&Config::from_yaml(&yaml).unwrap());
        Replica { base, shutdown }
    }
}

pub struct Replica {
    pub base: String,
    pub shutdown: CancellationToken,
}

impl Replica {
    pub fn live(&self, phone: &Phone) -> RequestBuilder {
        live_at(&self.base, phone)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn live_at(base: &str, phone: &Phone) -> RequestBuilder {
    reqwest::Client::new().get(format!("{base}/sse/mobile/{}", phone.id)).by(phone)
}

/// The bytes of a stream as they come, until they hold this.
pub async fn bytes_until(response: Response, wanted: &str) -> String {
    let mut bytes = response.bytes_stream();
    let mut text = String::new();
    while !text.contains(wanted) {
        let chunk: Option<Result<Bytes, _>> = timeout(PATIENCE, bytes.next()).await.expect("bytes in time");
        text.push_str(std::str::from_utf8(&chunk.expect("bytes before the end").unwrap()).unwrap());
    }
    text
}
