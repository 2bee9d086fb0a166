//! A tenant's watermark in, news for its open connections out; without any it reads nothing.
//!
//! Whoever joins is let in between two rounds, so nothing is missed between its first position and the next round.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use posduif_changelog::{LogError, LogState, reader::Read};
use posduif_model::{Bucket, Epoch, Lsn, Source, UserId};
use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Audience, Connection},
    event::Event,
    hub::LiveTenant,
    join::{self, Missed, Resumption, Start},
    news::News,
    sharing::Sharing,
    touched::{Step, Touched},
};
use crate::{app::App, metrics::LiveMetrics, sync::SyncError};

/// Users whose buckets are read at the same time.
const READERS: usize = 8;
/// Rounds do not follow each other faster: a busy tenant's commits are told together.
const BREATH: Duration = Duration::from_millis(15);
/// Rounds at once when the log moved under one.
const ATTEMPTS: usize = 3;
/// Changes that are counted for a reader that comes back.
const MOST_PENDING: usize = 100;
/// Rows of users that browsers are told of one by one; beyond it they load the list anew.
const MOST_USERS: usize = 500;

/// A connection that wants to hear.
pub struct Join {
    pub connection: Arc<Connection>,
    pub from: Resumption,
    /// Where the changes come from; dropped where the log could not be asked.
    pub answer: oneshot::Sender<Result<Source, SyncError>>,
}

/// What follows the log of one tenant.
pub(super) struct Tail {
    app: Arc<App>,
    live: Arc<LiveTenant>,
    joins: mpsc::UnboundedReceiver<Join>,
    metrics: LiveMetrics,
    /// Everything up to here was told.
    at: Option<Told>,
    sharing: Sharing,
    /// Browsers have heard of users up to here.
    users_told: Lsn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    epoch: Epoch,
    commit: Lsn,
}

impl Tail {
    pub fn new(
        app: Arc<App>,
        live: Arc<LiveTenant>,
        joins: mpsc::UnboundedReceiver<Join>,
        metrics: LiveMetrics,
    ) -> Self {
        let sharing = Sharing::new(app.api.sse.shared_interval, Instant::now());
        Tail { app, live, joins, metrics, at: None, sharing, users_told: Lsn::ZERO }
    }

    /// Follows the log until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut is_away = false;
        let mut look = Instant::now();
        loop {
            let Some((mut joins, by)) = self.next(&stop, look).await else { return };
            while let Ok(join) = self.joins.try_recv() {
                joins.push(join);
            }
            let Some(by) = by else {
                self.share().await;
                continue;
            };
            self.metrics.wake_ups.with_label_values(&[by]).inc();
            let outcome = self.round(joins).await;
            match &outcome {
                Err(error) if !is_away => {
                    tracing::warn!(tenant = %self.live.tenant.id, %error, "live connections hear nothing, the log is away");
                }
                Ok(()) if is_away => {
                    tracing::info!(tenant = %self.live.tenant.id, "live connections hear of the log again");
                }
                _ => {}
            }
            is_away = outcome.is_err();
            // A tenant that is never quiet must not keep those waiting whose turn it is.
            self.share().await;
            tokio::time::sleep(BREATH).await;
            look = Instant::now() + self.app.api.sse.look_interval;
        }
    }

    /// Waits for something to do: those who join, and why the log is looked at, if it is.
    async fn next(
        &mut self,
        stop: &CancellationToken,
        look: Instant,
    ) -> Option<(Vec<Join>, Option<&'static str>)> {
        let is_alone = self.live.roster.is_empty();
        if is_alone {
            // Who comes next begins at the watermark of that time.
            self.at = None;
        }
        let turn = self.sharing.due().filter(|_| !is_alone);
        select! {
            biased;
            () = stop.cancelled() => None,
            join = self.joins.recv() => join.map(|join| (vec![join], Some("join"))),
            () = self.live.wake.notified(), if !is_alone => Some((Vec::new(), Some("hint"))),
            () = sleep_until(look), if !is_alone => Some((Vec::new(), Some("look"))),
            () = sleep_until(turn.unwrap_or(look)), if turn.is_some() => Some((Vec::new(), None)),
        }
    }

    /// Tells what is new, then lets in those who join.
    async fn round(&mut self, joins: Vec<Join>) -> Result<(), LogError> {
        for _ in 0..ATTEMPTS {
            let Some(state) = self.live.tenant.log.state().await? else {
                refuse(joins, "the tenant has no log yet");
                return Ok(());
            };
            self.live.tenant.database.follow(&state);
            if state.rules != *self.app.rules.hash() {
                refuse(joins, "the log is written by other rules than this server's");
                return Ok(());
            }
            match self.advance(&state).await? {
                Step::Again => continue,
                Step::Done => {}
                Step::Lost => self.begin_again(&state),
            }
            self.at.get_or_insert_with(|| {
                self.users_told = state.watermark.commit;
                Told { epoch: state.epoch, commit: state.watermark.commit }
            });
            self.admit(joins, &state).await;
            return Ok(());
        }
        refuse(joins, "the log moves too fast to be followed");
        Ok(())
    }

    /// Tells the connections concerned what lies between the last round and the watermark.
    async fn advance(&mut self, state: &LogState) -> Result<Step, LogError> {
        let Some(Told { epoch, commit: after }) = self.at else { return Ok(Step::Done) };
        if epoch != state.epoch || after < state.floor {
            return Ok(Step::Lost);
        }
        let upto = state.watermark.commit;
        if upto <= after {
            // Below: Redis fell back. The same commits come again, and are told again to those who came meanwhile.
            self.at = Some(Told { epoch, commit: upto });
            return Ok(Step::Done);
        }
        let touched = match Touched::find(&self.live, &epoch, after, upto).await? {
            Ok(touched) => touched,
            Err(step) => return Ok(step),
        };
        self.sharing.add(touched.shared, Instant::now());
        let concerned: Vec<UserId> = match touched.everyone {
            true => self.live.roster.users(),
            false => touched.users.into_iter().filter(|user| self.live.roster.has(*user)).collect(),
        };
        let (live, room) = (&self.live, self.app.api.sse.buffer);
        let reads = concerned
            .into_iter()
            .map(|user| async move { (user, news(live, &epoch, user, after, upto, room).await) });
        let mut reads = stream::iter(reads).buffer_unordered(READERS);
        while let Some((user, news)) = reads.next().await {
            let news = match news? {
                Ok(news) => news,
                Err(step) => return Ok(step),
            };
            if news.is_empty() {
                continue;
            }
            for connection in live.roster.of(user) {
                if news.tell(&connection) {
                    self.metrics.overflows.inc();
                }
                // It will fetch what everyone sees along with this.
                connection.has_heard_shared(self.sharing.count());
            }
        }
        drop(reads);
        self.at = Some(Told { epoch, commit: upto });
        Ok(Step::Done)
    }

    /// The log does not continue what the connections have heard.
    fn begin_again(&mut self, state: &LogState) {
        let commit = state.watermark.commit;
        for connection in self.live.roster.all() {
            connection.resync(join::cursor_at(state, commit), self.sharing.count());
        }
        self.at = Some(Told { epoch: state.epoch, commit });
        self.users_told = commit;
    }

    async fn admit(&self, joins: Vec<Join>, state: &LogState) {
        let upto = state.watermark.commit;
        let mut behind = Vec::new();
        for Join { connection, from, answer } in joins {
            let Start { base, missed } = match join::start(from, state, self.app.rules.hash()) {
                Ok(start) => start,
                Err(error) => {
                    // Nobody waits for it where the reader went away.
                    let _ = answer.send(Err(error));
                    continue;
                }
            };
            connection.begin(base.clone(), self.sharing.count());
            match missed {
                Missed::Nothing => {}
                Missed::After(after) => behind.push((connection.clone(), after)),
                Missed::Snapshot => {
                    connection.stop_rows();
                    connection.owe(1);
                }
                Missed::Everything => connection.resync(base, self.sharing.count()),
            }
            self.live.roster.insert(&connection);
            let _ = answer.send(Ok(state.supply.source));
        }
        self.catch_up(&behind, &state.epoch, upto).await;
    }

    /// Tells those who come back what they have missed.
    async fn catch_up(&self, behind: &[(Arc<Connection>, Lsn)], epoch: &Epoch, upto: Lsn) {
        let is_device = |connection: &Connection| matches!(connection.audience, Audience::Device { .. });
        let (devices, browsers): (Vec<_>, Vec<_>) =
            behind.iter().partition(|(connection, _)| is_device(connection));
        let readers: Vec<(UserId, Lsn)> = devices.iter().map(|(c, after)| (c.user, *after)).collect();
        let counts = self.live.tenant.log.pending(epoch, &readers, upto, MOST_PENDING).await;
        // Without a count there may be something.
        let counts = counts.unwrap_or_else(|_| vec![1; readers.len()]);
        for ((connection, _), count) in devices.into_iter().zip(counts) {
            if count > 0 {
                connection.owe(count);
            }
        }
        for (connection, after) in browsers {
            let room = self.app.api.sse.buffer;
            match news(&self.live, epoch, connection.user, *after, upto, room).await {
                Ok(Ok(news)) => news.tell(connection),
                Ok(Err(_)) | Err(_) => News::unknown().tell(connection),
            };
        }
    }

    /// Tells those whose turn it is of what everyone sees.
    async fn share(&mut self) {
        let count = self.sharing.count();
        while let Some(group) = self.sharing.turn(Instant::now()) {
            if group == 0
                && let Err(error) = self.tell_browsers().await
            {
                tracing::debug!(tenant = %self.live.tenant.id, %error, "browsers were not told of users");
            }
            for connection in self.live.roster.all() {
                let unheard = connection.unheard_shared(count);
                let is_device = connection.audience.device().is_some();
                if unheard > 0 && is_device && Sharing::is_in(connection.number, group) {
                    connection.owe(unheard);
                    connection.has_heard_shared(count);
                }
            }
        }
    }

    /// Tells browsers whose rows of users changed.
    async fn tell_browsers(&mut self) -> Result<(), LogError> {
        let Some(Told { epoch, commit: upto }) = self.at else { return Ok(()) };
        let browsers: Vec<Arc<Connection>> =
            self.live.roster.all().into_iter().filter(|c| c.audience.device().is_none()).collect();
        let after = self.users_told;
        if browsers.is_empty() || upto <= after {
            self.users_told = self.users_told.max(upto);
            return Ok(());
        }
        let read = self.live.tenant.log.read(&epoch, &[Bucket::Shared], after, upto, MOST_USERS).await?;
        let updated = match &read {
            Read::Page(page) if page.through >= upto => Some(users_in(page)),
            _ => None,
        };
        for connection in &browsers {
            match &updated {
                Some(users) => {
                    let events = users.iter().map(|user| Event::UserUpdated { user: *user, at: None });
                    if connection.push(events) {
                        self.metrics.overflows.inc();
                    }
                }
                None => connection.owe(1),
            }
        }
        self.users_told = upto;
        Ok(())
    }
}

fn refuse(joins: Vec<Join>, why: &'static str) {
    for join in joins {
        // Nobody waits for it where the reader went away.
        let _ = join.answer.send(Err(SyncError::NotReady(why)));
    }
}

/// Users whose rows a page has, each once.
fn users_in(page: &posduif_changelog::Page) -> Vec<UserId> {
    #[derive(serde::Deserialize)]
    struct Key {
        id: UserId,
    }
    let mut seen = HashSet::new();
    let changes = page.entries.iter().flat_map(|entry| &entry.changes);
    let users = changes.filter(|c| c.table.schema() == "public" && c.table.name() == "users");
    users
        .filter_map(|change| serde_json::from_str::<Key>(&change.key).ok())
        .map(|key| key.id)
        .filter(|user| seen.insert(*user))
        .collect()
}

/// What a stretch of the log means for one user: its bucket is read once, for all of its connections.
async fn news(
    live: &LiveTenant,
    epoch: &Epoch,
    user: UserId,
    after: Lsn,
    upto: Lsn,
    room: usize,
) -> Result<Result<News, Step>, LogError> {
    let connections = live.roster.of(user);
    // Rows are read by their own connections.
    if !connections.is_empty() && connections.iter().all(|connection| connection.sends_rows()) {
        return Ok(Ok(News::unknown()));
    }
    let read = live.tenant.log.read(epoch, &[Bucket::User(user)], after, upto, room.saturating_add(1)).await;
    match read {
        Ok(Read::Page(page)) => Ok(Ok(News::of(user, &page.entries, page.through < upto))),
        Ok(Read::Expired) => Ok(Err(Step::Lost)),
        Ok(Read::Moved) => Ok(Err(Step::Again)),
        // The user's sync will say so; the others' connections shall not wait for it.
        Err(LogError::Corrupt(_)) => Ok(Ok(News::unknown())),
        Err(error) => Err(error),
    }
}
