//! Callers in, their connections out; owns everything that live connections of a replica share.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use posduif_changelog::presence::Member;
use posduif_model::{TenantId, UserId};
use tokio::{
    select,
    sync::{Mutex, Notify, Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Audience, Connection, Ending},
    hints,
    join::Resumption,
    presence::{self, Presence},
    recheck::{self, Named},
    roster::Roster,
    seats::{NoSeat, Seat, Seats},
    stream::LiveStream,
    tail::{Join, Tail},
};
use crate::{app::App, metrics::LiveMetrics, sync::SyncError, tenant::Tenant};

/// How long a caller waits to be let in: as long as Redis may take.
const ADMISSION: Duration = Duration::from_secs(10);
/// How much later the next connection is ended when the replica stops: they all come back somewhere else.
const DRAIN_STEP: Duration = Duration::from_millis(10);
/// After how many milliseconds a reader comes back, chosen anew for each.
const RETRY: std::ops::RangeInclusive<u64> = 1_000..=5_000;

/// What a tenant's connections at this replica share.
pub struct LiveTenant {
    pub tenant: Arc<Tenant>,
    pub roster: Roster,
    pub presence: Presence,
    /// The watermark may have moved.
    pub(super) wake: Notify,
    /// Devices whose credential changed.
    pub(super) named: mpsc::UnboundedSender<Named>,
    joins: mpsc::UnboundedSender<Join>,
    /// Ends its tasks.
    stop: CancellationToken,
}

/// All live connections of a replica.
pub struct Hub {
    pub app: Arc<App>,
    tenants: ArcSwap<LiveTenants>,
    /// There are other tenants now.
    pub(super) changed: Notify,
    pub(super) metrics: LiveMetrics,
    /// How many pages are read for events at the same time.
    pub(super) page_readers: Semaphore,
    seats: Arc<Seats>,
    numbers: AtomicU64,
    draining: CancellationToken,
    stop: CancellationToken,
    /// Tenants whose tasks are to be begun.
    beginning: mpsc::UnboundedSender<Inbox>,
    inboxes: Mutex<mpsc::UnboundedReceiver<Inbox>>,
}

pub(super) type LiveTenants = BTreeMap<TenantId, Arc<LiveTenant>>;

/// What the tasks of a tenant are fed with.
struct Inbox {
    live: Arc<LiveTenant>,
    joins: mpsc::UnboundedReceiver<Join>,
    named: mpsc::UnboundedReceiver<Named>,
}

/// Who wants to listen.
pub struct Caller {
    pub tenant: Arc<Tenant>,
    pub user: UserId,
    pub audience: Audience,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    Hints,
    Rows,
}

/// What a caller wants to hear, and from where on.
pub struct Wish {
    pub from: Resumption,
    pub payload: Payload,
}

/// Why a caller was not let in; all of them pass.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Full(#[from] NoSeat),
    #[error("this replica stops; connect again")]
    Draining,
    #[error("the log of changes is not available right now")]
    Away,
    #[error(transparent)]
    Sync(SyncError),
}

/// A place among the connections; leaving it tells everybody concerned.
pub struct Place {
    pub connection: Arc<Connection>,
    live: Arc<LiveTenant>,
    member: Option<Member>,
    metrics: LiveMetrics,
    _seat: Seat,
}

impl Place {
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.live.tenant
    }

    /// From now on the user counts as being there.
    fn settle(&mut self) {
        let member =
            Member { user: self.connection.user, device: self.connection.audience.device().cloned() };
        self.live.presence.enter(member.clone());
        self.member = Some(member);
        self.metrics.connections.with_label_values(&[self.connection.audience.kind()]).inc();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.roster.remove(&self.connection);
        if let Some(member) = &self.member {
            self.live.presence.leave(member);
            self.metrics.connections.with_label_values(&[self.connection.audience.kind()]).dec();
        }
    }
}

impl Hub {
    pub fn new(app: Arc<App>, metrics: LiveMetrics) -> Arc<Self> {
        let (beginning, inboxes) = mpsc::unbounded_channel();
        let sse = &app.api.sse;
        let hub = Hub {
            page_readers: Semaphore::new(sse.page_readers),
            seats: Seats::new(sse),
            app,
            tenants: ArcSwap::default(),
            changed: Notify::new(),
            metrics,
            numbers: AtomicU64::new(0),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            beginning,
            inboxes: Mutex::new(inboxes),
        };
        hub.add(&hub.app.tenants());
        Arc::new(hub)
    }

    pub(super) fn tenants(&self) -> Arc<LiveTenants> {
        self.tenants.load_full()
    }

    /// Listeners of these tenants may come from now on. Only one caller at a time changes the tenants.
    pub fn add(&self, added: &[Arc<Tenant>]) {
        let mut tenants = LiveTenants::clone(&self.tenants());
        for tenant in added {
            let (joins, wanting) = mpsc::unbounded_channel();
            let (named, renamed) = mpsc::unbounded_channel();
            let live = Arc::new(LiveTenant {
                tenant: tenant.clone(),
                roster: Roster::default(),
                presence: Presence::default(),
                wake: Notify::new(),
                named,
                joins,
                stop: self.stop.child_token(),
            });
            // Nobody begins tasks any more once the hub has ended.
            let _ended = self.beginning.send(Inbox { live: live.clone(), joins: wanting, named: renamed });
            tenants.insert(tenant.id.clone(), live);
        }
        self.tenants.store(Arc::new(tenants));
        self.changed.notify_one();
    }

    /// Ends the streams of these tenants and lets no more in.
    pub fn remove(&self, removed: &[Arc<Tenant>]) {
        let mut tenants = LiveTenants::clone(&self.tenants());
        let gone: Vec<_> = removed.iter().filter_map(|tenant| tenants.remove(&tenant.id)).collect();
        self.tenants.store(Arc::new(tenants));
        self.changed.notify_one();
        for live in gone {
            live.stop.cancel();
            live.roster.all().iter().for_each(|connection| connection.end(Ending::Removed));
        }
    }

    /// Runs what connections need until [`Hub::stop`]; ends earlier only where something broke.
    pub async fn run(self: Arc<Self>) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        let mut inboxes = self.inboxes.lock().await;
        let stop = self.stop.clone();
        tasks.spawn(asked_to_end(hints::listen(self.clone(), stop.clone()), stop.clone()));
        loop {
            let ended = select! {
                Some(inbox) = inboxes.recv(), if !self.stop.is_cancelled() => {
                    self.begin(inbox, &mut tasks);
                    continue;
                }
                ended = tasks.join_next() => ended,
            };
            match ended {
                Some(Ok(true)) => {}
                Some(Ok(false)) => {
                    return Err(io::Error::other("a task of the live connections ended unasked"));
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(()),
            }
        }
    }

    fn begin(&self, inbox: Inbox, tasks: &mut JoinSet<bool>) {
        let Inbox { live, joins, named } = inbox;
        let (app, metrics, stop) = (self.app.clone(), self.metrics.clone(), live.stop.clone());
        let tail = Tail::new(app.clone(), live.clone(), joins, metrics.clone()).run(stop.clone());
        let offline_after = app.api.sse.offline_after;
        let recheck = recheck::watch(app, live.clone(), named, stop.clone());
        let presence = presence::keep(live, offline_after, metrics, stop.clone());
        tasks.spawn(asked_to_end(tail, stop.clone()));
        tasks.spawn(asked_to_end(recheck, stop.clone()));
        tasks.spawn(asked_to_end(presence, stop));
    }

    /// Lets a caller in.
    pub async fn open(self: &Arc<Self>, caller: Caller, wish: Wish) -> Result<LiveStream, OpenError> {
        let Caller { tenant, user, audience } = caller;
        let refused = |label: &str| self.metrics.refused.with_label_values(&[label]).inc();
        if self.draining.is_cancelled() {
            refused("draining");
            return Err(OpenError::Draining);
        }
        let live = self.tenants().get(&tenant.id).ok_or(OpenError::Away)?.clone();
        let seat = self.seats.take(&tenant.id, user, audience.device());
        let seat = seat.inspect_err(|reason| refused(reason.label()))?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let sends_rows = wish.payload == Payload::Rows;
        let room = self.app.api.sse.buffer;
        let connection = Arc::new(Connection::new(number, user, audience, sends_rows, room));
        let metrics = self.metrics.clone();
        // From here on, giving up leaves nothing behind.
        let mut place =
            Place { connection: connection.clone(), live: live.clone(), member: None, metrics, _seat: seat };
        let (answer, admitted) = oneshot::channel();
        let join = Join { connection: connection.clone(), from: wish.from, answer };
        live.joins.send(join).map_err(|_| OpenError::Draining)?;
        let source = match timeout(ADMISSION, admitted).await {
            Ok(Ok(Ok(source))) => source,
            Ok(Ok(Err(error))) => return Err(OpenError::Sync(error)),
            Ok(Err(_)) | Err(_) => return Err(OpenError::Away),
        };
        place.settle();
        // It may have come after those were told who are here.
        if self.draining.is_cancelled() {
            connection.end(Ending::Draining { retry: retry() });
        }
        if live.stop.is_cancelled() {
            connection.end(Ending::Removed);
        }
        Ok(LiveStream::new(self.clone(), place, source, retry()))
    }

    /// Ends all connections, one after the other so that they do not come back at once; waits for their ends.
    pub async fn drain(&self, within: Duration) {
        self.draining.cancel();
        let drained = async {
            let mut open: Vec<_> = self.tenants().values().flat_map(|live| live.roster.all()).collect();
            // By a scattered number: those that came together do not go together.
            open.sort_by_key(|connection| connection.number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let most = u32::try_from(open.len()).unwrap_or(u32::MAX).max(1);
            // A quarter is for those that are slow to hear of it.
            let step = DRAIN_STEP.min(within.mul_f64(0.75) / most);
            for connection in open {
                connection.end(Ending::Draining { retry: retry() });
                sleep(step).await;
            }
            self.seats.all_free().await;
        };
        if timeout(within, drained).await.is_err() {
            tracing::warn!(
                connections = self.seats.count(),
                "live connections did not end in time and are cut off"
            );
        }
    }

    /// Ends what [`Hub::run`] runs.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// Runs a task; whether it was meant to end when it did.
async fn asked_to_end(task: impl Future<Output = ()>, stop: CancellationToken) -> bool {
    task.await;
    stop.is_cancelled()
}

fn retry() -> u64 {
    use rand::RngExt as _;
    rand::rng().random_range(RETRY)
}
