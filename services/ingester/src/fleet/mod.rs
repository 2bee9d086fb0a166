//! The tenants as they are configured now and what other ingesters do in, a task for each tenant that is this one's out.
//!
//! Ingesters share tenants by leases in Redis, which say who tries (docs/adr/0017). Nothing here is waited for by a session.

mod crew;
mod identity;
mod orders;
mod refusals;
mod share;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use posduif_changelog::{
    LogError, Timeouts,
    connect::{self, Connection},
    fleet::{Facts, FleetBoard, Wishes},
};
use posduif_model::TenantId;
use posduif_runtime::{
    config::{RedisConfig, TenantConfig},
    postgres,
    readiness::Readiness,
    reload::Tenants,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    crew::Crew,
    orders::{Here, Orders, orders},
    refusals::Refusals,
};
use crate::{health, link, metrics::IngesterMetrics};

pub use self::{crew::MakeSession, identity::Identity};

/// How often an ingester says that it lives, and looks at the others.
const BEAT: Duration = Duration::from_millis(500);
/// For how long it is believed. Others take its tenants after that, so a killed one's are followed again in about six seconds.
const LEASE: Duration = Duration::from_secs(5);
/// With every living ingester asking twice a second, nobody asks for so long only where nobody can.
const PAUSE: Duration = Duration::from_secs(2);
/// How long all have to take back what they work for, after Redis forgot it: a beat, and a connection made anew.
const SETTLING: Duration = Duration::from_secs(3);
/// Looks that follow each other at once: what is granted is begun, what has ended is given up.
const LOOKS: usize = 3;
/// What ending may take: sessions are dropped, and Redis is told.
const ENDING: Duration = Duration::from_secs(4);
const LEAVING: Duration = Duration::from_secs(2);
/// An answer of Redis that takes longer would come too late for the lease.
const ANSWER: Duration = Duration::from_secs(2);
/// Where this stands in the readiness.
const COMPONENT: &str = "leases";
/// Of connections that look whether a tenant can be reached again.
const APPLICATION: &str = "posduif-ingester-tries";

/// One ingester among others.
pub struct Fleet {
    tenants: watch::Receiver<Tenants>,
    /// There may be other lists yet.
    follows: bool,
    identity: Identity,
    redis: RedisConfig,
    connection: Option<Connection>,
    board: FleetBoard,
    crew: Crew,
    refusals: Refusals,
    tries: JoinSet<(TenantId, bool)>,
    /// Tenants whose series are removed once more: parts of their sessions may still have counted.
    left: Vec<TenantId>,
    answered: Option<Instant>,
    settling: Option<Instant>,
    troubled: bool,
    metrics: IngesterMetrics,
    readiness: Readiness,
}

impl Fleet {
    /// `session` makes a tenant's session.
    pub fn new(
        tenants: watch::Receiver<Tenants>,
        identity: Identity,
        redis: RedisConfig,
        session: MakeSession,
        metrics: IngesterMetrics,
        readiness: Readiness,
    ) -> Self {
        readiness.not_ready(COMPONENT, "starting");
        Fleet {
            tenants,
            follows: true,
            board: FleetBoard::new(identity.id.clone(), LEASE, PAUSE),
            identity,
            redis,
            connection: None,
            crew: Crew::new(session),
            refusals: Refusals::default(),
            tries: JoinSet::new(),
            left: Vec::new(),
            answered: None,
            settling: None,
            troubled: false,
            metrics,
            readiness,
        }
    }

    /// Works until the process drains; then it ends its sessions and gives its tenants to the others at once.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        tracing::info!(ingester = self.identity.name, id = self.identity.id, "joining the ingesters");
        let mut timer = interval(BEAT);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = timer.tick() => {}
                changed = self.tenants.changed(), if self.follows => self.follows = changed.is_ok(),
                tenant = self.crew.ended() => self.left(tenant),
                Some(tried) = self.tries.join_next() => self.tried(tried.ok()),
            }
            while let Some(tenant) = self.crew.ended_too() {
                self.left(tenant);
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.round() => {}
            }
        }
        if timeout(ENDING, self.crew.end()).await.is_err() {
            tracing::warn!("sessions take long to end; their slots are taken from them");
        }
        match timeout(LEAVING, self.leave()).await {
            Ok(Ok(())) => tracing::info!("gave all tenants up"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not give tenants up; others wait until the leases end")
            }
            Err(_) => tracing::warn!("Redis did not answer; others wait until the leases end"),
        }
        Ok(())
    }

    /// One look, and what follows from it.
    async fn round(&mut self) {
        let entries = self.tenants.borrow_and_update().clone();
        let known: BTreeSet<TenantId> = entries.iter().map(|entry| entry.id.clone()).collect();
        for tenant in self.crew.outdated(&entries) {
            self.crew.stop(&tenant);
        }
        for tenant in std::mem::take(&mut self.left) {
            if !self.crew.running().contains(&tenant) {
                self.metrics.forget(&tenant);
            }
        }
        self.refuse(&entries, &known);
        let facts = Facts {
            name: self.identity.name.clone(),
            seat: self.identity.seat.clone(),
            known,
            refused: self.refusals.set(),
        };
        let mut wishes = Orders::default();
        for _ in 0..LOOKS {
            let asked = Instant::now();
            if let Err(error) = self.ask(&facts, &wishes).await {
                self.away(&error);
                break;
            }
            wishes = self.carry_out(&entries, &facts.known, asked);
            if wishes.give.is_empty() && wishes.take.is_empty() {
                self.readiness.ready(COMPONENT);
                break;
            }
        }
        self.report(&facts.known);
    }

    async fn ask(&mut self, facts: &Facts, wishes: &Orders) -> Result<(), LogError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let wishes = Wishes { give: &wishes.give, take: &wishes.take };
        let lived = self.board.ask(&mut connection, facts, wishes).await?;
        // Not one whose answer is still to come.
        self.connection = Some(connection);
        if !lived && self.answered.is_some() {
            tracing::warn!(
                "this ingester was not believed to live any more; taking back what nobody else has taken"
            );
            self.settling = Some(Instant::now() + SETTLING);
        }
        self.answered = Some(Instant::now());
        if std::mem::take(&mut self.troubled) {
            tracing::info!("Redis says again which ingester works for which tenant");
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, LogError> {
        let timeouts = Timeouts {
            connect: self.redis.connect_timeout.min(ANSWER),
            response: self.redis.response_timeout.min(ANSWER),
        };
        connect::connect(self.redis.url.expose(), timeouts).await
    }

    /// Begins and ends what the last answer asks for; gives what to ask for next.
    fn carry_out(&mut self, entries: &[TenantConfig], known: &BTreeSet<TenantId>, asked: Instant) -> Orders {
        let (running, ending) = (self.crew.running(), self.crew.ending());
        let settling = self.settling.is_some_and(|until| Instant::now() < until);
        let id = self.board.id();
        let here = Here { id, known, running: &running, ending: &ending, settling };
        let orders = orders(self.board.view(), &here);
        for tenant in &orders.stop {
            let to = self.board.view().leases.get(tenant).filter(|holder| *holder != id);
            tracing::info!(%tenant, taken = to.is_some(), "ending the session; another ingester works for the tenant");
            self.crew.stop(tenant);
        }
        // Only now: what was lost meanwhile holds no lease any more.
        self.crew.extend(asked + LEASE);
        for entry in entries.iter().filter(|entry| orders.start.contains(&entry.id)) {
            tracing::info!(tenant = %entry.id, "working for the tenant");
            self.crew.start(entry);
        }
        orders
    }

    /// Leaves tenants to others whose databases cannot be used from here, and looks whether that has changed.
    fn refuse(&mut self, entries: &[TenantConfig], known: &BTreeSet<TenantId>) {
        let now = Instant::now();
        self.refusals.keep(known);
        for tenant in self.crew.running() {
            let others = self.board.view().members.iter().any(|(id, member)| {
                id != self.board.id()
                    && member.facts.known.contains(&tenant)
                    && !member.facts.refused.contains(&tenant)
            });
            if self.refusals.fails(&tenant, self.metrics.vitals(&tenant).failing(now), others, now) {
                tracing::warn!(%tenant, "the tenant's database cannot be used from here; leaving it to another ingester");
            }
        }
        let due = self.refusals.due(now);
        for entry in entries.iter().filter(|entry| due.contains(&entry.id)).cloned() {
            self.tries.spawn(async move {
                let reached = postgres::connect(&entry, APPLICATION).await.is_ok();
                (entry.id, reached)
            });
        }
    }

    fn tried(&mut self, tried: Option<(TenantId, bool)>) {
        if let Some((tenant, true)) = tried {
            tracing::info!(%tenant, "the tenant's database can be reached again");
            self.refusals.accept(&tenant);
        }
    }

    /// A tenant's task has ended: what it said holds no longer.
    fn left(&mut self, tenant: TenantId) {
        self.readiness.forget(tenant.as_str());
        health::forget_parts(&self.readiness, tenant.as_str());
        self.metrics.forget(&tenant);
        self.left.push(tenant);
    }

    /// Sessions go on without Redis's word, because nobody else can have it either; none begins.
    fn away(&mut self, error: &LogError) {
        if !std::mem::replace(&mut self.troubled, true) {
            tracing::warn!(%error, "Redis does not say which ingester works for which tenant; trying again");
        }
        if self.answered.is_none_or(|answered| answered.elapsed() > LEASE) {
            self.readiness.not_ready(
                COMPONENT,
                format!(
                    "Redis does not say which ingester works for which tenant, so no session can begin; those that \
                     follow a tenant go on: {error}"
                ),
            );
        }
    }

    fn report(&self, known: &BTreeSet<TenantId>) {
        let (view, running) = (self.board.view(), self.crew.running());
        let held = |tenant: &&TenantId| {
            view.leases.get(*tenant).is_some_and(|holder| view.members.contains_key(holder))
        };
        self.metrics.unheld(&known.iter().filter(|tenant| !held(tenant)).cloned().collect());
        let fleet = &self.metrics.fleet;
        for (gauge, number) in
            [(&fleet.members, view.members.len()), (&fleet.known, known.len()), (&fleet.held, running.len())]
        {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        // Whose sessions could still say how Redis is.
        if running.is_empty() {
            self.readiness.forget(link::COMPONENT);
        }
    }

    async fn leave(&mut self) -> Result<(), LogError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        self.board.leave(&mut connection).await
    }
}
