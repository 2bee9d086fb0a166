//! What can go wrong with the log, sorted by what the caller does about it.

/// A failed operation on the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another ingester holds a higher fencing token; this one must stop writing for the tenant.
    #[error("another ingester has taken over this tenant (fencing token superseded)")]
    Fenced,
    /// The log is not in the state that this writer left it in; the writer must look at it anew.
    #[error("the log changed under its writer ({0}); reading its state again")]
    Diverged(String),
    /// Redis has no memory left; nothing of the refused script was written.
    #[error("Redis is out of memory (maxmemory reached); raise maxmemory or lower the retention: {0}")]
    OutOfMemory(redis::RedisError),
    /// Redis may drop any stream of the log when memory is short, and nobody would notice.
    #[error(
        "Redis evicts keys when its memory is full ({0}), which would tear holes into the log; set maxmemory-policy noeviction"
    )]
    Evicting(String),
    /// The user of `redis.url` lacks a right; an operator must grant it.
    #[error(
        "Redis does not allow what Posduif needs; give the user of redis.url the rights of deploy/redis/users.acl: {0}"
    )]
    Forbidden(redis::RedisError),
    /// Redis is unreachable or refused the command; worth a retry.
    #[error("Redis is not available: {0}")]
    Unavailable(String),
    /// What is stored is not what Posduif writes; never skipped in silence.
    #[error("the log holds an entry that cannot be read: {0}")]
    Corrupt(String),
}

impl From<redis::RedisError> for LogError {
    fn from(error: redis::RedisError) -> Self {
        match error.code() {
            Some("FENCED") => LogError::Fenced,
            Some("DIVERGED") => LogError::Diverged(error.detail().unwrap_or_default().to_owned()),
            Some("NOPERM") => LogError::Forbidden(error),
            Some("OOM") => LogError::OutOfMemory(error),
            _ if is_refusal_in_script(&error.to_string()) => LogError::Forbidden(error),
            _ => LogError::Unavailable(error.to_string()),
        }
    }
}

impl From<deadpool_redis::PoolError> for LogError {
    fn from(error: deadpool_redis::PoolError) -> Self {
        LogError::Unavailable(error.to_string())
    }
}

/// Inside of a script a refusal has no code of its own before Redis 7.2, and other words since.
fn is_refusal_in_script(message: &str) -> bool {
    message.contains("The user executing the script can't") || message.contains("ACL failure in script")
}
