//! A stretch of the commit log in, whom it concerns out.

use std::collections::HashSet;

use posduif_changelog::{LogError, commits::Commits};
use posduif_model::{Bucket, Epoch, Lsn, UserId};

use super::hub::LiveTenant;

/// Commits that are read at a time.
const BATCH: usize = 500;

/// Who is concerned by a stretch of the log.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// How many of the commits everyone sees.
    pub shared: u64,
    pub users: HashSet<UserId>,
    /// It is unknown whom they concern.
    pub everyone: bool,
}

/// What became of a look at the log.
pub(super) enum Step {
    Done,
    /// The log moved; look at it again.
    Again,
    /// What lay between is gone.
    Lost,
}

impl Touched {
    /// Whom the commits after `after` concern.
    pub async fn find(
        live: &LiveTenant,
        epoch: &Epoch,
        after: Lsn,
        upto: Lsn,
    ) -> Result<Result<Self, Step>, LogError> {
        let log = &live.tenant.log;
        let mut touched = Touched::default();
        let mut from = after;
        loop {
            let commits = match log.commits(epoch, from, upto, BATCH).await? {
                Commits::Read(commits) => commits,
                Commits::Expired => return Ok(Err(Step::Lost)),
                Commits::Moved => return Ok(Err(Step::Again)),
            };
            let read = commits.len();
            for commit in commits {
                // A gap in the chain is a loss; whoever syncs will find out of what.
                touched.everyone |= commit.previous != from;
                from = commit.commit;
                let mut buckets = commit.buckets;
                if commit.buckets_elsewhere {
                    buckets = elsewhere(live, epoch, commit.commit).await?;
                }
                for bucket in buckets {
                    match bucket {
                        Bucket::Shared => touched.shared += 1,
                        Bucket::User(user) => {
                            touched.users.insert(user);
                        }
                    }
                }
            }
            if read < BATCH {
                touched.everyone |= from != upto;
                return Ok(Ok(touched));
            }
        }
    }
}

/// The buckets of a large transaction that someone here listens to.
async fn elsewhere(live: &LiveTenant, epoch: &Epoch, commit: Lsn) -> Result<Vec<Bucket>, LogError> {
    let here = live.roster.users().into_iter().map(Bucket::User);
    let here: Vec<Bucket> = std::iter::once(Bucket::Shared).chain(here).collect();
    let mut touched = Vec::new();
    for some in here.chunks(BATCH) {
        let are_members = live.tenant.log.touched(epoch, commit, some).await?;
        touched.extend(some.iter().zip(are_members).filter(|(_, is)| *is).map(|(bucket, _)| *bucket));
    }
    Ok(touched)
}
