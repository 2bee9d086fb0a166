//! Uploads of one user in, one of them at a time out: the others wait here and not on connections to the database.
//!
//! A phone on a bad network sends an upload again and again while the first one is still at work. PostgreSQL would let them
//! take turns, too, but each would hold a connection while it waits, until the other users have none.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use posduif_model::UserId;
use tokio::{sync::OwnedMutexGuard, time::timeout};

use crate::store::StoreError;

/// How long an upload waits for the others of its user.
const PATIENCE: Duration = Duration::from_secs(5);

type Line = Arc<tokio::sync::Mutex<()>>;

/// Who is at work or waits, of one tenant on this replica.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<UserId, Line>>);

/// A place in the user's line, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    user: UserId,
    at_work: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// The user's turn, which ends when it is dropped.
    ///
    /// # Errors
    /// `Contended` where the others do not come to an end.
    pub async fn wait(&self, user: UserId) -> Result<Turn<'_>, StoreError> {
        let line = self.lines().entry(user).or_default().clone();
        let mut turn = Turn { turns: self, user, at_work: None };
        match timeout(PATIENCE, line.lock_owned()).await {
            Ok(at_work) => turn.at_work = Some(at_work),
            Err(_) => return Err(StoreError::Contended("other uploads of the user are at work".to_owned())),
        }
        Ok(turn)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<UserId, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut lines = self.turns.lines();
        self.at_work = None;
        // Whoever else is in the line holds it, too.
        if lines.get(&self.user).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_user_waits_for_itself_and_nobody_else_and_nothing_stays_behind() {
        let turns = Turns::default();
        let [ann, ben] =
            [1, 2].map(|last| format!("00000000-0000-0000-0000-00000000000{last}").parse().unwrap());
        let first = turns.wait(ann).await.unwrap();
        drop(turns.wait(ben).await.unwrap());
        assert!(matches!(turns.wait(ann).await, Err(StoreError::Contended(_))), "the first is at work");
        let mut second = std::pin::pin!(turns.wait(ann));
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop(first);
        drop(second.await.unwrap());
        assert!(turns.lines().is_empty());
    }
}
