//! Connections to Redis with time limits that fit a log: large answers, no endless waits.

use std::time::Duration;

use deadpool_redis::{Manager, Pool, Runtime};
use redis::{AsyncConnectionConfig, IntoConnectionInfo, aio::MultiplexedConnection};

use crate::error::LogError;

/// A pool of connections for the API's short reads.
pub type RedisPool = Pool;

/// One connection; clones share it.
pub type Connection = MultiplexedConnection;

/// How long Redis may take: to accept a connection, and to answer a command.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    pub response: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { connect: Duration::from_secs(5), response: Duration::from_secs(5) }
    }
}

impl Timeouts {
    /// The library's default of 500 ms for an answer is shorter than a large XRANGE or an fsync stall.
    fn config(self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect))
            .set_response_timeout(Some(self.response))
    }
}

/// A pool of at most `size` connections.
///
/// # Errors
/// `Unavailable` when the URL cannot be used; no connection is made yet.
pub fn pool(info: impl IntoConnectionInfo, size: usize, timeouts: Timeouts) -> Result<RedisPool, LogError> {
    let manager = Manager::new_with_config(info, timeouts.config())?;
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(timeouts.response))
        .create_timeout(Some(timeouts.connect))
        .recycle_timeout(Some(timeouts.response))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| LogError::Unavailable(error.to_string()))
}

/// One connection of its own for a writer, whose order of commands matters.
pub async fn connect(info: impl IntoConnectionInfo, timeouts: Timeouts) -> Result<Connection, LogError> {
    let client = redis::Client::open(info)?;
    Ok(client.get_multiplexed_async_connection_with_config(&timeouts.config()).await?)
}
