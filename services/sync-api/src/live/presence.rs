//! Connections that open and close in, one word to Redis now and then and one to PostgreSQL per change out.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use posduif_changelog::presence::Member;
use posduif_model::DeviceId;
use tokio::{
    select,
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::hub::LiveTenant;
use crate::{
    metrics::LiveMetrics,
    store::presence::{self, PresenceError},
    tenant::Tenant,
};

/// How long a member is believed without another word: a replica that was killed says none.
const BELIEVED: u64 = 45;
/// How often the members of this replica are named again.
const RENEW: Duration = Duration::from_secs(20);
/// How often somebody looks for members that are gone: where some were here of late, and elsewhere.
const SWEEP: Duration = Duration::from_secs(2);
const IDLE_SWEEP: Duration = Duration::from_secs(15);
/// Changes are gathered for so long, so that a crowd is one write.
const GATHER: Duration = Duration::from_millis(100);
/// Members and users that one sweep takes.
const AT_ONCE: usize = 500;
/// How often PostgreSQL's view is compared with Redis's: after a loss of Redis nobody is left who could leave.
const COMPARE: Duration = Duration::from_secs(300);

/// Who is connected to this replica, in one tenant.
#[derive(Debug, Default)]
pub struct Presence {
    held: Mutex<Held>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    connections: HashMap<Member, usize>,
    entered: HashSet<Member>,
    left: HashSet<Member>,
}

impl Presence {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(&self, member: Member) {
        let mut held = self.held();
        let connections = held.connections.entry(member.clone()).or_default();
        *connections += 1;
        if *connections == 1 {
            held.left.remove(&member);
            held.entered.insert(member);
            drop(held);
            self.changed.notify_one();
        }
    }

    pub fn leave(&self, member: &Member) {
        let mut held = self.held();
        let Some(connections) = held.connections.get_mut(member) else { return };
        *connections -= 1;
        if *connections == 0 {
            held.connections.remove(member);
            held.entered.remove(member);
            held.left.insert(member.clone());
            drop(held);
            self.changed.notify_one();
        }
    }

    /// Who came and who went since this was last asked.
    fn changes(&self) -> (Vec<Member>, Vec<Member>) {
        let mut held = self.held();
        (held.entered.drain().collect(), held.left.drain().collect())
    }

    fn all(&self) -> Vec<Member> {
        self.held().connections.keys().cloned().collect()
    }

    /// What could not be told is told later.
    fn put_back(&self, left: Vec<Member>) {
        let mut held = self.held();
        for member in left {
            if !held.connections.contains_key(&member) {
                held.left.insert(member);
            }
        }
    }
}

/// Keeps presence of one tenant until it is stopped, and says good-bye for those who left by then.
pub(super) async fn keep(
    live: Arc<LiveTenant>,
    offline_after: Duration,
    metrics: LiveMetrics,
    stop: CancellationToken,
) {
    let mut keeper = Keeper { live, offline_after, metrics, gone: Vec::new(), is_away: false };
    let started = Instant::now();
    let (mut renew, mut sweep) = (started + RENEW, started + IDLE_SWEEP.mul_f64(rand::random()));
    // Whoever was connected to a replica that has just been replaced is back by then.
    let mut compare = started + Duration::from_secs(BELIEVED).mul_f64(1.0 + rand::random::<f64>());
    let mut busy_until = started;
    loop {
        let stopped = select! {
            () = stop.cancelled() => true,
            () = keeper.live.presence.changed.notified() => {
                busy_until = Instant::now() + offline_after + IDLE_SWEEP;
                select! {
                    () = tokio::time::sleep(GATHER) => false,
                    () = stop.cancelled() => true,
                }
            }
            () = sleep_until(sweep.min(renew)) => false,
        };
        let now = Instant::now();
        let everyone = now >= renew;
        let outcome = keeper.tell(everyone).await;
        let told = keeper.note(outcome);
        if everyone {
            renew = now + if told { RENEW } else { SWEEP };
        }
        if stopped {
            return;
        }
        let outcome = keeper.sweep().await;
        let found = keeper.note_found(outcome);
        if found > 0 {
            busy_until = now + offline_after + IDLE_SWEEP;
        }
        sweep = now
            + match found {
                AT_ONCE.. => GATHER,
                _ if now < busy_until => SWEEP,
                _ => IDLE_SWEEP,
            };
        if now >= compare {
            let outcome = compare_views(&keeper.live.tenant).await;
            keeper.note(outcome);
            compare = now + COMPARE.mul_f64(0.5 + rand::random::<f64>());
        }
    }
}

struct Keeper {
    live: Arc<LiveTenant>,
    offline_after: Duration,
    metrics: LiveMetrics,
    /// Devices that left and of which PostgreSQL has not heard.
    gone: Vec<DeviceId>,
    is_away: bool,
}

impl Keeper {
    /// Tells Redis who came, who went, and with `everyone` who is still here.
    async fn tell(&self, everyone: bool) -> Result<(), PresenceError> {
        let presence = &self.live.presence;
        let (entered, left) = presence.changes();
        let entered = if everyone || self.is_away { presence.all() } else { entered };
        let board = &self.live.tenant.presence;
        let told = async {
            if !entered.is_empty() {
                board.enter(&entered, BELIEVED).await?;
            }
            if !left.is_empty() {
                board.leave(&left, self.offline_after.as_secs()).await?;
            }
            Ok(())
        };
        let outcome = told.await;
        if outcome.is_err() {
            presence.put_back(left);
        }
        outcome
    }

    /// Removes whoever is gone, of any replica, and tells PostgreSQL of changes; says how many there were.
    async fn sweep(&mut self) -> Result<usize, PresenceError> {
        let tenant = self.live.tenant.clone();
        let swept = tenant.presence.sweep(AT_ONCE).await?;
        let found = swept.gone.len().max(swept.changed.len());
        self.gone.extend(swept.gone.into_iter().filter_map(|member| member.device));
        if swept.changed.is_empty() && self.gone.is_empty() {
            return Ok(found);
        }
        let users: Vec<_> = swept.changed.iter().map(|(user, _)| *user).collect();
        let gone = &self.gone;
        let settled = tenant
            .database
            .run(async |client| presence::settle(client, &tenant.presence, &users, gone).await);
        let settled = settled.await?;
        self.gone.clear();
        tenant.presence.settle(&swept.changed).await?;
        self.metrics.presence.with_label_values(&["online"]).inc_by(settled.online);
        self.metrics.presence.with_label_values(&["offline"]).inc_by(settled.offline);
        Ok(found)
    }

    /// Logs the first failure of several and the end of them; says whether it went well.
    fn note(&mut self, outcome: Result<(), PresenceError>) -> bool {
        let went_well = outcome.is_ok();
        match outcome {
            Err(error) if !self.is_away => {
                tracing::warn!(tenant = %self.live.tenant.id, %error, "presence is not up to date");
            }
            Ok(()) if self.is_away => {
                tracing::info!(tenant = %self.live.tenant.id, "presence is up to date again")
            }
            _ => {}
        }
        self.is_away = !went_well;
        went_well
    }

    /// [`Keeper::note`], and how much was found; after a failure something may be left.
    fn note_found(&mut self, outcome: Result<usize, PresenceError>) -> usize {
        match outcome {
            Ok(found) => found,
            Err(error) => {
                self.note(Err(error));
                1
            }
        }
    }
}

/// Finds users whom PostgreSQL believes to be online and who are not.
pub async fn compare_views(tenant: &Tenant) -> Result<(), PresenceError> {
    let limit = i64::try_from(AT_ONCE).unwrap_or(i64::MAX);
    let mut after = Uuid::nil();
    loop {
        let believed =
            tenant.database.run(async |client| presence::believed_online(client, after, limit).await);
        let believed = believed.await?;
        let Some(last) = believed.last() else { return Ok(()) };
        after = last.uuid();
        tenant.presence.note_absent(&believed).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(device: &str) -> Member {
        let user = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        Member { user, device: Some(device.parse().unwrap()) }
    }

    #[test]
    fn only_the_first_and_the_last_connection_of_a_device_are_news() {
        let presence = Presence::default();
        presence.enter(member("a"));
        presence.enter(member("a"));
        assert_eq!(presence.changes(), (vec![member("a")], vec![]));
        presence.leave(&member("a"));
        assert_eq!(presence.changes(), (vec![], vec![]));
        presence.leave(&member("a"));
        assert_eq!(presence.changes(), (vec![], vec![member("a")]));
        presence.leave(&member("a"));
        assert_eq!(presence.changes(), (vec![], vec![]));
    }

    #[test]
    fn who_comes_back_before_it_was_told_never_left() {
        let presence = Presence::default();
        presence.enter(member("a"));
        let _ = presence.changes();
        presence.leave(&member("a"));
        presence.enter(member("a"));
        assert_eq!(presence.changes(), (vec![member("a")], vec![]));
        presence.put_back(vec![member("a")]);
        assert_eq!(presence.changes(), (vec![], vec![]));
    }
}
