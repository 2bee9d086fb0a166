//! What Redis says of itself in, what an operator should know about the log's safety out.

use crate::{connect::Connection, error::LogError};

/// Sentences about settings that put the log at risk; none for a server that is set up as it should be.
///
/// They come from INFO, which needs no right to read the configuration.
pub async fn concerns(connection: &mut Connection) -> Result<Vec<String>, LogError> {
    let info: String = redis::cmd("INFO").arg(("memory", "persistence")).query_async(connection).await?;
    Ok(judge(&info))
}

fn judge(info: &str) -> Vec<String> {
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let mut concerns = Vec::new();
    if field("maxmemory_policy").is_some_and(|policy| policy != "noeviction") {
        concerns
            .push("Redis may evict the log when memory is short; set maxmemory-policy noeviction".to_owned());
    }
    if field("aof_enabled") == Some("0") {
        concerns.push(
            "Redis forgets the log when it restarts, and devices resync; set appendonly yes".to_owned(),
        );
    }
    concerns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_may_lose_the_log_is_reported() {
        let good = "# Memory\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\naof_enabled:1\r\n";
        assert!(judge(good).is_empty());
        assert_eq!(judge("maxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n").len(), 2);
    }
}
