//! A connection's mail in, the bytes of its answer out.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use posduif_model::{
    DeviceId, Lsn, Source,
    cursor::{Cursor, Resume},
};
use serde_json::json;
use tokio::{
    select,
    time::{Interval, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{
    connection::{Audience, Connection, Ending, Mail},
    event::{self, Event},
    hub::{Hub, Place},
    page::{self, Rows},
};
use crate::store::{StoreError, messages};

/// How long rows that cannot be read now are left alone.
const LATER: Duration = Duration::from_secs(1);
/// A count of unread messages that takes longer is left out.
const COUNTING: Duration = Duration::from_secs(2);

/// The body of a live connection; dropping it ends the connection.
pub struct LiveStream {
    hub: Arc<Hub>,
    place: Place,
    ping: Interval,
    /// Told once, at first.
    source: Source,
    /// After how many milliseconds the reader shall come back; told once, at first.
    retry: Option<u64>,
    /// The id of events that a device gets: where it goes on if it does nothing about them.
    id: Option<(Cursor, String)>,
    is_over: bool,
}

impl LiveStream {
    pub(super) fn new(hub: Arc<Hub>, place: Place, source: Source, retry: u64) -> Self {
        let every = hub.app.api.sse.ping_interval;
        let mut ping = interval_at(tokio::time::Instant::now() + every, every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        LiveStream { hub, place, ping, source, retry: Some(retry), id: None, is_over: false }
    }

    /// The bytes as they are due.
    pub fn into_bytes(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, async |mut stream| {
            let text = stream.next().await?;
            Some((Ok(Bytes::from(text)), stream))
        })
    }

    fn connection(&self) -> &Arc<Connection> {
        &self.place.connection
    }

    async fn next(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        if let Some(retry) = self.retry.take() {
            let mut text = event::retry(retry);
            let cursor = self.id().unwrap_or_default();
            let connected = json!({"type": "connected", "cursor": cursor, "mode": self.source.as_str()});
            self.write(&mut text, Some(&cursor), "connected", &connected.to_string());
            return Some(text);
        }
        loop {
            let Some(mail) = self.connection().take() else {
                select! {
                    () = self.place.connection.wait() => continue,
                    _ = self.ping.tick() => return Some(event::PING.to_owned()),
                }
            };
            let text = self.text_of(mail).await;
            if !text.is_empty() || self.is_over {
                return Some(text).filter(|text| !text.is_empty());
            }
        }
    }

    async fn text_of(&mut self, mail: Mail) -> String {
        let mut text = String::new();
        // Boxed, as below: what is needed now and then shall not take memory in every connection all the time.
        let unread = Box::pin(self.unread(&mail.events)).await;
        for event in &mail.events {
            let id = match self.connection().audience {
                Audience::Device { .. } => self.id(),
                Audience::Web { .. } => event.at().and_then(|at| self.passed(at)),
            };
            self.write(&mut text, id.as_deref(), event.name(), &event.data(unread));
        }
        if mail.has_rows && mail.ending.is_none() {
            Box::pin(self.write_rows(&mut text)).await;
        }
        if let Some(ending) = mail.ending {
            self.is_over = true;
            self.hub.metrics.ended.with_label_values(&[ending.reason()]).inc();
            if let Ending::Draining { retry } = ending {
                text.push_str(&event::retry(retry));
                let data = json!({"type": "draining", "retry_ms": retry});
                self.write(&mut text, None, "draining", &data.to_string());
            }
        }
        text
    }

    async fn write_rows(&mut self, text: &mut String) {
        let connection = self.connection().clone();
        let tenant = self.place.tenant().clone();
        match page::next(&self.hub, &tenant, &connection).await {
            Rows::Nothing => {}
            Rows::Page { cursor, text: page, more } => {
                self.write(text, Some(&cursor), "change", &page);
                if more {
                    connection.owe(1);
                }
            }
            Rows::TooLarge => {
                connection.stop_rows();
                connection.owe(1);
            }
            Rows::Expired => {
                // Of what comes the reader cannot use rows either, before it has begun again.
                connection.stop_rows();
                connection.push([Event::Resync]);
            }
            Rows::Later => {
                sleep(LATER).await;
                connection.owe(1);
            }
        }
    }

    fn write(&self, text: &mut String, id: Option<&str>, name: &str, data: &str) {
        event::write(text, id, name, data);
        self.hub.metrics.events.with_label_values(&[name]).inc();
    }

    /// What the browser's user has not read, asked for once for all messages that are told now.
    async fn unread(&self, events: &[Event]) -> Option<i64> {
        if !events.iter().any(|event| matches!(event, Event::Arrived { .. })) {
            return None;
        }
        let user = self.connection().user;
        let counted =
            self.place.tenant().database.run(async |client| -> Result<i64, StoreError> {
                messages::count_unread(client, user).await
            });
        timeout(COUNTING, counted).await.ok()?.ok()
    }

    /// Where the reader goes on, sealed; the same text as long as that stays.
    fn id(&mut self) -> Option<String> {
        let base = self.connection().base()?;
        if let Some((cursor, text)) = &self.id
            && *cursor == base
        {
            return Some(text.clone());
        }
        let text = self.seal(&base)?;
        self.id = Some((base, text.clone()));
        Some(text)
    }

    /// Where a browser goes on that has heard of everything up to here.
    fn passed(&self, commit: Lsn) -> Option<String> {
        let base = self.connection().base()?;
        self.seal(&Cursor { at: Resume::Stream { commit, confirms: None, goal: None }, ..base })
    }

    fn seal(&self, cursor: &Cursor) -> Option<String> {
        let connection = self.connection();
        let browser = browser();
        let device = connection.audience.device().or(browser.as_ref())?;
        self.hub.app.cursors.seal(cursor, &self.place.tenant().id, device, connection.user).ok()
    }
}

/// Stands for a device in the cursors of browsers; they are sealed for their user, who has none of this name.
pub fn browser() -> Option<DeviceId> {
    "browser".parse().ok()
}
