//! A tenant's log in, the next call for its webhook out: each commit once and in order, or the word that some were skipped.

use std::{collections::VecDeque, time::Duration};

use posduif_changelog::{
    CommitRecord, Delivered, LogError, LogReader, LogState, commits::Commits, delivery::Part as Page,
};
use posduif_model::{Bucket, Lsn, TenantId, UserId};

use super::body::{self, Message, Part, Told};

/// Why commits were skipped: the values of a metric's label.
pub const SKIPS: [&str; 5] = ["begin", "epoch", "trimmed", "age", "gap"];

/// Users named by one call: it has at most some 60 KiB, with the largest batch 400.
const MOST_USERS: usize = 1_000;
/// Commits read at once, where calls are smaller than that: most of a busy tenant's may concern nobody.
const READ: usize = 100;
/// Looks at a log that moves meanwhile.
const ATTEMPTS: usize = 3;

/// What to tell next, and up to where everything is told once it is taken.
#[derive(Clone, Debug)]
pub struct Call {
    pub message: Message,
    /// Absent before the last part of a commit that concerns very many.
    pub upto: Option<Delivered>,
    /// Whole commits in it.
    pub commits: u64,
    /// When its oldest commit was committed, by PostgreSQL's clock, in microseconds since 2000.
    pub oldest: Option<i64>,
    pub skipped: bool,
}

/// Reads one tenant's log for its webhook; what was not taken yet is read again.
pub struct Feed {
    log: LogReader,
    tenant: TenantId,
    batch: usize,
    shared: bool,
    max_age: i64,
    /// Everything up to here was told or concerns nobody; `None` before the first look.
    at: Option<Delivered>,
    /// Why the next call says that commits were skipped before it.
    skipped: Option<&'static str>,
    /// The commit that is being told in parts.
    crowd: Option<Crowd>,
}

/// A commit that concerns too many users for one call.
struct Crowd {
    record: CommitRecord,
    /// The next page of its buckets.
    page: Option<u64>,
    users: VecDeque<UserId>,
    shared: bool,
    part: u32,
}

impl Crowd {
    fn new(record: CommitRecord) -> Self {
        Crowd { record, page: Some(0), users: VecDeque::new(), shared: false, part: 0 }
    }
}

/// What a look at the log gave.
enum Look {
    Call(Box<Call>),
    /// Nothing that concerns anybody, up to the watermark.
    Nothing,
    /// The log moved, or there is more of it.
    Again,
}

impl Feed {
    pub fn new(log: LogReader, tenant: TenantId, batch: usize, shared: bool, max_age: Duration) -> Self {
        let max_age = i64::try_from(max_age.as_micros()).unwrap_or(i64::MAX);
        Feed { log, tenant, batch, shared, max_age, at: None, skipped: None, crowd: None }
    }

    pub fn log(&self) -> &LogReader {
        &self.log
    }

    /// Everything up to here was told, or concerns nobody; `None` while that commits were skipped is not told either.
    pub fn told(&self) -> Option<Delivered> {
        self.at.filter(|_| self.skipped.is_none())
    }

    /// The call was taken: go on behind it.
    pub fn taken(&mut self, call: &Call) {
        self.at = call.upto.or(self.at);
        if call.skipped {
            self.skipped = None;
        }
        match (&mut self.crowd, call.upto) {
            (Some(crowd), None) => {
                let told = MOST_USERS.min(crowd.users.len());
                crowd.users.drain(..told);
                (crowd.shared, crowd.part) = (false, crowd.part.saturating_add(1));
            }
            _ => self.crowd = None,
        }
    }

    /// Whether a call that is still not taken tells of what is too old; the log is to be asked anew then.
    pub async fn is_stale(&mut self, call: &Call) -> Result<bool, LogError> {
        let Some(oldest) = call.oldest else { return Ok(false) };
        let Some(state) = self.log.state().await? else { return Ok(false) };
        let newest = self.newest(&state).await?;
        let is_stale = newest.is_some_and(|newest| self.is_old(oldest, newest));
        if is_stale {
            self.crowd = None;
        }
        Ok(is_stale)
    }

    /// The next call, or `None` where there is nothing to tell.
    ///
    /// # Errors
    /// Whatever the log says; nothing is lost by asking again.
    pub async fn next(&mut self) -> Result<Option<Call>, LogError> {
        let mut moved = 0;
        while moved < ATTEMPTS {
            let before = self.at;
            match self.look().await? {
                Look::Call(call) => return Ok(Some(*call)),
                Look::Nothing => return Ok(None),
                Look::Again => moved += usize::from(self.at == before),
            }
        }
        Ok(None)
    }

    /// Why the next call will say that something was skipped, if it will.
    pub fn skipped(&self) -> Option<&'static str> {
        self.skipped
    }

    async fn look(&mut self) -> Result<Look, LogError> {
        let (state, at) = match self.at {
            Some(at) => (self.log.state().await?, Some(at)),
            None => self.log.delivered().await?,
        };
        // A log that is gone is opened anew by the next session.
        let Some(state) = state else { return Ok(Look::Nothing) };
        let at = self.settle(&state, at);
        if self.crowd.is_some() {
            return self.next_part(at).await;
        }
        let upto = state.watermark.commit;
        let (records, newest) = if upto > at.commit {
            let records = match self.log.commits(&at.epoch, at.commit, upto, self.at_once()).await? {
                Commits::Read(records) => records,
                Commits::Expired | Commits::Moved => return Ok(Look::Again),
            };
            (records, self.newest(&state).await?)
        } else {
            // Below: Redis fell back, and what it gets again was told.
            (Vec::new(), None)
        };
        self.gather(at, records, newest)
    }

    fn at_once(&self) -> usize {
        self.batch.max(READ)
    }

    /// Where to read on in this log.
    fn settle(&mut self, state: &LogState, at: Option<Delivered>) -> Delivered {
        let epoch = state.epoch;
        let at = match at {
            // Nobody knows what came before: a webhook that is new, or a Redis that forgot.
            None => {
                self.skip("begin");
                Delivered { epoch, commit: state.watermark.commit }
            }
            Some(at) if at.epoch != epoch => {
                self.skip("epoch");
                Delivered { epoch, commit: state.base.max(state.floor) }
            }
            Some(at) if at.commit < state.floor => {
                self.skip("trimmed");
                Delivered { epoch, commit: state.floor }
            }
            Some(at) => at,
        };
        if self.at != Some(at) {
            self.crowd = None;
        }
        self.at = Some(at);
        at
    }

    fn skip(&mut self, why: &'static str) {
        self.skipped.get_or_insert(why);
    }

    /// Makes a call of the first of these commits; what concerns nobody is passed.
    fn gather(
        &mut self,
        from: Delivered,
        records: Vec<CommitRecord>,
        newest: Option<i64>,
    ) -> Result<Look, LogError> {
        let (read, mut at) = (records.len(), from);
        let mut told: Vec<Told> = Vec::new();
        let (mut named, mut oldest) = (0, None);
        for record in records {
            let next = Delivered { commit: record.commit, ..at };
            if record.previous != at.commit {
                self.skip("gap");
            }
            let users = record.buckets.iter().filter_map(|bucket| match bucket {
                Bucket::User(user) => Some(*user),
                Bucket::Shared => None,
            });
            let users: Vec<UserId> = users.collect();
            let is_shared = users.len() < record.buckets.len();
            let concerns = record.buckets_elsewhere || !users.is_empty() || (is_shared && self.shared);
            if concerns && newest.is_some_and(|newest| self.is_old(record.committed_at, newest)) {
                self.skip("age");
            } else if concerns {
                let is_crowd = record.buckets_elsewhere;
                if !told.is_empty() && (is_crowd || named + users.len() > MOST_USERS) {
                    break;
                }
                if is_crowd {
                    self.crowd = Some(Crowd::new(record));
                    return Ok(Look::Again);
                }
                named += users.len();
                oldest = oldest.or(Some(record.committed_at));
                told.push(Told::new(&next, &record, users, is_shared));
            }
            at = next;
            if told.is_empty() {
                self.at = Some(at);
            }
            if told.len() >= self.batch {
                break;
            }
        }
        if told.is_empty() && read >= self.at_once() {
            return Ok(Look::Again);
        }
        if told.is_empty() && self.skipped.is_none() {
            return Ok(Look::Nothing);
        }
        let message = self.write(&at, &told)?;
        let commits = u64::try_from(told.len()).unwrap_or(u64::MAX);
        let skipped = self.skipped.is_some();
        Ok(Look::Call(Box::new(Call { message, upto: Some(at), commits, oldest, skipped })))
    }

    /// The next part of a commit that concerns very many.
    async fn next_part(&mut self, at: Delivered) -> Result<Look, LogError> {
        let Some(crowd) = &mut self.crowd else { return Ok(Look::Again) };
        while let Some(page) = crowd.page
            && crowd.users.len() <= MOST_USERS
        {
            match self.log.touched_page(&at.epoch, crowd.record.commit, page).await? {
                Page::Page { buckets, next } => {
                    crowd.page = next;
                    for bucket in buckets {
                        match bucket {
                            Bucket::User(user) => crowd.users.push_back(user),
                            Bucket::Shared => crowd.shared = true,
                        }
                    }
                }
                Page::Expired | Page::Moved => {
                    self.crowd = None;
                    return Ok(Look::Again);
                }
            }
        }
        let upto = Delivered { commit: crowd.record.commit, ..at };
        let more = crowd.page.is_some() || crowd.users.len() > MOST_USERS;
        let users = crowd.users.iter().take(MOST_USERS).copied().collect();
        let told = Told::new(&upto, &crowd.record, users, crowd.shared);
        let told = told.in_part(Part { part: crowd.part, more });
        let oldest = Some(crowd.record.committed_at);
        let skipped = self.skipped.is_some();
        let message = self.write(if more { &at } else { &upto }, std::slice::from_ref(&told))?;
        let commits = u64::from(!more);
        Ok(Look::Call(Box::new(Call { message, upto: (!more).then_some(upto), commits, oldest, skipped })))
    }

    fn write(&self, upto: &Delivered, told: &[Told]) -> Result<Message, LogError> {
        let written = body::write(&self.tenant, self.skipped.is_some(), upto, told);
        written.map_err(|error| LogError::Corrupt(format!("commits that cannot be told ({error})")))
    }

    /// When the newest commit that readers see was committed: ages are counted from it, by PostgreSQL's own clock.
    async fn newest(&self, state: &LogState) -> Result<Option<i64>, LogError> {
        let upto = state.watermark.commit;
        let before = Lsn::new(upto.get().saturating_sub(1)).max(state.floor);
        match self.log.commits(&state.epoch, before, upto, 1).await? {
            Commits::Read(records) => Ok(records.first().map(|record| record.committed_at)),
            Commits::Expired | Commits::Moved => Ok(None),
        }
    }

    fn is_old(&self, committed_at: i64, newest: i64) -> bool {
        newest.saturating_sub(committed_at) > self.max_age
    }
}
