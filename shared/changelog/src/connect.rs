//! Connections to Redis with time limits that fit a log: large answers, no endless waits.

use std::time::Duration;

use deadpool_redis::{Manager, Pool, Runtime};
use redis::{AsyncConnectionConfig, IntoConnectionInfo, aio::MultiplexedConnection};

use crate::error::LogError;

/// A pool of connections for the API's short reads.
pub type RedisPool = Pool;

fn timeouts(response: Option<Duration>) -> AsyncConnectionConfig {
    // The library's default of 500 ms is shorter than a large XRANGE or an fsync stall.
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(5)))
        .set_response_timeout(response)
}

/// A pool of at most `size` connections; a command that is not answered within `response` fails.
///
/// # Errors
/// `Unavailable` when the URL cannot be used; no connection is made yet.
pub fn pool(info: impl IntoConnectionInfo, size: usize, response: Duration) -> Result<RedisPool, LogError> {
    let manager = Manager::new_with_config(info, timeouts(Some(response)))?;
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(response))
        .create_timeout(Some(Duration::from_secs(5)))
        .recycle_timeout(Some(response))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| LogError::Unavailable(error.to_string()))
}

/// One connection of its own for a writer, whose order of commands matters.
pub async fn connect(
    info: impl IntoConnectionInfo,
    response: Duration,
) -> Result<MultiplexedConnection, LogError> {
    let client = redis::Client::open(info)?;
    Ok(client.get_multiplexed_async_connection_with_config(&timeouts(Some(response))).await?)
}
