//! A password and a stored hash in, yes or no out, in the same time for users that do not exist.

use std::sync::{Arc, Mutex, PoisonError};

use posduif_accounts::password::{HashError, Workspace, hash};
use tokio::sync::Semaphore;

/// Checks passwords on the blocking threads, a few at a time: each takes some 20 MiB and as many milliseconds.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// What is checked in place of a hash that does not exist.
    dummy: Arc<str>,
    permits: Arc<Semaphore>,
    /// Memory for as many checks as may run at a time.
    workspaces: Arc<Mutex<Vec<Workspace>>>,
}

/// The check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error("a password check ended without a result")]
    Interrupted,
}

impl Passwords {
    /// `at_once` is the most checks that run at a time.
    pub fn new(at_once: usize) -> Result<Self, PasswordError> {
        let dummy = hash("no user has this password")?;
        let permits = Arc::new(Semaphore::new(at_once));
        Ok(Passwords { dummy: dummy.into(), permits, workspaces: Arc::default() })
    }

    /// Whether the password fits the stored hash; where there is none the same work is done for nothing.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, PasswordError> {
        let _permit = self.permits.acquire().await.map_err(|_| PasswordError::Interrupted)?;
        let (exists, dummy) = (stored.is_some(), self.dummy.clone());
        let workspaces = self.workspaces.clone();
        let check = move || {
            let kept = || workspaces.lock().unwrap_or_else(PoisonError::into_inner);
            let mut workspace = kept().pop().unwrap_or_default();
            let fits = workspace.is_match(&password, stored.as_deref().unwrap_or(&dummy));
            kept().push(workspace);
            fits
        };
        let fits = tokio::task::spawn_blocking(check).await.map_err(|_| PasswordError::Interrupted)??;
        Ok(fits && exists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_an_existing_user_fits() {
        let passwords = Passwords::new(2).unwrap();
        let stored = hash("correct horse").unwrap();
        assert!(passwords.verify("correct horse".into(), Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify("wrong horse".into(), Some(stored)).await.unwrap());
        assert!(!passwords.verify("no user has this password".into(), None).await.unwrap());
        assert!(passwords.verify("x".into(), Some("not a hash".into())).await.is_err());
    }
}
