//! Somebody who wants in in, leave to try out: log-ins and enrolments, counted by all replicas together.
//!
//! What is counted lies in Redis. Without it each replica counts for itself, and counts successes too.

use std::{future::Future, time::Duration};

use posduif_changelog::{
    LogError,
    attempts::{Attempts, Counter, Tally},
};
use posduif_model::{TenantId, UserId};
use posduif_runtime::config::RateLimitConfig;
use tokio::time::timeout;

use super::{
    address::Address,
    buckets::{Buckets, Overflow},
    level::{Exhausted, Level},
};
use crate::credential::pseudonym::Pseudonyms;

/// A tenant sees as many unknown tokens as so many addresses may present.
const ADDRESSES_PER_TENANT: u32 = 10;
/// How long a log-in waits for Redis before the replica counts for itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// Counters that a replica keeps for itself while Redis is away.
const MOST: usize = 1 << 16;

/// Counts who tries to get in.
#[derive(Debug)]
pub struct Tries {
    attempts: Attempts,
    names: Pseudonyms,
    log_ins: u32,
    enrollments: u32,
    own_log_ins: Buckets,
    own_enrollments: Buckets,
}

/// A log-in under way. It counts as failed unless something else is said of it.
#[derive(Debug)]
pub struct LogInTry<'a> {
    tries: &'a Tries,
    counted: Vec<Counter>,
    /// Who tries from where; only of a tenant that is served.
    origin: Option<(&'a TenantId, String)>,
}

/// An enrolment token that somebody presents.
#[derive(Debug)]
pub struct TokenTry<'a> {
    tries: &'a Tries,
    address: Counter,
    tenant: Option<Counter>,
}

impl Tries {
    pub fn new(attempts: Attempts, names: Pseudonyms, config: &RateLimitConfig) -> Self {
        let own = |per_minute| Buckets::new(per_minute, per_minute, MOST, Overflow::Shared);
        let (log_ins, enrollments) = (config.login_per_minute, config.enrollment_per_minute);
        let (own_log_ins, own_enrollments) = (own(log_ins), own(enrollments));
        Tries { attempts, names, log_ins, enrollments, own_log_ins, own_enrollments }
    }

    /// Takes a try from the address and from the name. They are taken before the password is looked at, or many tries at
    /// once would pass.
    ///
    /// A name that is attacked from many addresses has no tries left; its user still gets in from where it got in before.
    pub async fn log_in<'a>(
        &'a self,
        address: Address,
        tenant: Result<&'a TenantId, &str>,
        username: &str,
    ) -> Result<LogInTry<'a>, Exhausted> {
        let from = address.ip().to_string();
        let by_address = Counter::of_all(&self.names.of(&["log-in from", &from]));
        let by_name = match tenant {
            Ok(tenant) => Counter::of_tenant(tenant, &self.names.of(&["log-in as", username])),
            Err(unknown) => Counter::of_all(&self.names.of(&["log-in as", unknown, username])),
        };
        let origin = tenant.ok().map(|tenant| (tenant, self.names.of(&["got in", username, &from])));
        let mut log_in = LogInTry { tries: self, counted: Vec::new(), origin };
        match ask(self.attempts.take(&by_address, self.log_ins)).await {
            Ok(Tally::Allowed { .. }) => log_in.counted.push(by_address),
            Ok(Tally::Refused { wait }) => return Err(exhausted(self.log_ins, wait)),
            Err(_) => {
                self.own_log_ins.take(("from", address))?;
                self.own_log_ins.take(("as", tenant, username))?;
                return Ok(log_in);
            }
        }
        match ask(self.attempts.take(&by_name, self.log_ins)).await {
            Ok(Tally::Allowed { .. }) => log_in.counted.push(by_name),
            Ok(Tally::Refused { .. }) if log_in.is_familiar().await => {}
            Ok(Tally::Refused { wait }) => {
                log_in.forgive().await;
                return Err(exhausted(self.log_ins, wait));
            }
            Err(_) => drop(self.own_log_ins.take(("as", tenant, username))?),
        }
        Ok(log_in)
    }

    /// Asks whether an enrolment token may be presented.
    ///
    /// A tenant whose tokens are guessed at from many addresses refuses those that guess; who presented no unknown token
    /// itself lately enrols all the same.
    pub async fn token<'a>(
        &'a self,
        address: Address,
        tenant: Option<&TenantId>,
    ) -> Result<TokenTry<'a>, Exhausted> {
        let of_tenant =
            |tenant: &TenantId| Counter::of_tenant(tenant, &self.names.of(&["unknown enrolment tokens"]));
        let from = address.ip().to_string();
        let token = TokenTry {
            tries: self,
            address: Counter::of_all(&self.names.of(&["unknown enrolment tokens from", &from])),
            tenant: tenant.map(of_tenant),
        };
        let remaining = match ask(self.attempts.look(&token.address, self.enrollments)).await {
            Ok(Tally::Allowed { remaining }) => remaining,
            Ok(Tally::Refused { wait }) => return Err(exhausted(self.enrollments, wait)),
            Err(_) => {
                self.own_enrollments.take(("from", address))?;
                return Ok(token);
            }
        };
        if let Some(tenant) = token.tenant.as_ref().filter(|_| remaining < self.enrollments)
            && let Ok(Tally::Refused { wait }) = ask(self.attempts.look(tenant, self.of_tenant())).await
        {
            return Err(exhausted(self.of_tenant(), wait));
        }
        Ok(token)
    }

    /// Counts a token that a web user makes.
    pub async fn invitation(&self, tenant: &TenantId, user: UserId) -> Result<(), Exhausted> {
        let counter = Counter::of_tenant(tenant, &self.names.of(&["invites", &user.to_string()]));
        match ask(self.attempts.take(&counter, self.enrollments)).await {
            Ok(Tally::Allowed { .. }) => Ok(()),
            Ok(Tally::Refused { wait }) => Err(exhausted(self.enrollments, wait)),
            Err(_) => self.own_enrollments.take(("invites", tenant, user)).map(drop),
        }
    }

    /// Forgets what was counted while Redis was away.
    pub fn sweep(&self) {
        self.own_log_ins.sweep();
        self.own_enrollments.sweep();
    }

    fn of_tenant(&self) -> u32 {
        self.enrollments.saturating_mul(ADDRESSES_PER_TENANT)
    }
}

impl LogInTry<'_> {
    /// The password was right: nothing is counted, and the place is remembered.
    pub async fn succeeded(self) {
        if let Some((tenant, origin)) = &self.origin {
            // Where Redis is away, it is remembered another time.
            let _ = ask(self.tries.attempts.remember(tenant, origin)).await;
        }
        self.forgive().await;
    }

    /// Whether the password is right was not found out.
    pub async fn forgive(self) {
        for counter in &self.counted {
            // What cannot be given back is forgotten within a minute.
            let _ = ask(self.tries.attempts.give_back(counter, self.tries.log_ins)).await;
        }
    }

    async fn is_familiar(&self) -> bool {
        let Some((tenant, origin)) = &self.origin else { return false };
        ask(self.tries.attempts.is_familiar(tenant, origin)).await.unwrap_or(false)
    }
}

impl TokenTry<'_> {
    /// Nobody has made the token.
    pub async fn note_unknown(self) {
        let (attempts, limit) = (&self.tries.attempts, self.tries.enrollments);
        // Without Redis it was counted before.
        let _ = ask(attempts.count(&self.address, limit)).await;
        if let Some(tenant) = &self.tenant {
            let _ = ask(attempts.count(tenant, self.tries.of_tenant())).await;
        }
    }
}

/// What Redis says, soon; else why not, in the log.
async fn ask<T>(asked: impl Future<Output = Result<T, LogError>>) -> Result<T, LogError> {
    let late = |_| LogError::Unavailable("no answer in time".to_owned());
    let answer = timeout(PATIENCE, asked).await.map_err(late).and_then(|answer| answer);
    if let Err(error) = &answer {
        tracing::warn!(%error, "who tries to get in is counted by each replica for itself, Redis is away");
    }
    answer
}

/// The headers of a counter that allows `per_minute` after a pause.
fn exhausted(per_minute: u32, wait: Duration) -> Exhausted {
    let whole_seconds = |milliseconds: u128| u64::try_from(milliseconds.div_ceil(1000)).unwrap_or(u64::MAX);
    let others = 60_000 * u128::from(per_minute.saturating_sub(1)) / u128::from(per_minute.max(1));
    let reset = whole_seconds(wait.as_millis() + others);
    let level = Level { limit: per_minute, remaining: 0, reset };
    Exhausted { level, retry_after: whole_seconds(wait.as_millis()).max(1) }
}
