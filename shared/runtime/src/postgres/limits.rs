//! How long a session may take in, the startup options that make PostgreSQL itself end what takes longer out.

use std::time::Duration;

/// Limits of a pool's sessions: work that nobody waits for any more ends by itself.
///
/// PostgreSQL does not apply them to the wait of a commit for its standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// For one statement, waits for locks included.
    pub statement: Duration,
    pub lock: Duration,
    /// A transaction whose client says nothing holds locks and the horizon of vacuum.
    pub idle_in_transaction: Duration,
}

impl SessionLimits {
    /// As startup `options`.
    pub(super) fn options(&self) -> String {
        let SessionLimits { statement, lock, idle_in_transaction } = self;
        format!(
            "-c statement_timeout={}ms -c lock_timeout={}ms -c idle_in_transaction_session_timeout={}ms",
            statement.as_millis(),
            lock.as_millis(),
            idle_in_transaction.as_millis()
        )
    }
}
