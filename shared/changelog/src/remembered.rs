//! What PostgreSQL said of somebody's credential in, the same once more without asking it out, until it is forgotten.

use crate::{connect::RedisPool, error::LogError};

/// How long what is cached is believed without another look at PostgreSQL, in seconds.
const LIFETIME: i64 = 3_600;

/// How long nothing is stored after [`Until::Committed`], in seconds: longer than a commit may take. Whoever dies before
/// it could say [`Until::Now`] leaves this much time in which PostgreSQL is asked every time, and no stale credential.
const HOLD: i64 = 30;

/// KEYS: hash. ARGV: lifetime, channel, message, hold. Forgets the fields, begins another generation of them, keeps them
/// away for as long as it is told and tells those that hold connections.
///
/// It may run when memory is short: a revocation must not wait for memory.
const FORGET: &str = r"#!lua flags=allow-oom
redis.call('HDEL', KEYS[1], 'user', 'token', 'account', 'held')
local now = redis.call('TIME')
if redis.call('HEXISTS', KEYS[1], 'generation') == 0 then
  redis.call('HSET', KEYS[1], 'generation', now[1] .. string.format('%06d', now[2]))
end
redis.call('HINCRBY', KEYS[1], 'generation', 1)
if ARGV[4] ~= '0' then redis.call('HSET', KEYS[1], 'held', now[1] + ARGV[4]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.pcall('PUBLISH', ARGV[2], ARGV[3])
";

/// KEYS: hash. ARGV: generation or '', lifetime, fields and values. Stores what was read in that generation.
const PUT: &str = r"#!lua
local held = redis.call('HGET', KEYS[1], 'held')
if held and tonumber(held) > tonumber(redis.call('TIME')[1]) then return end
if (redis.call('HGET', KEYS[1], 'generation') or '') == ARGV[1] then
  redis.call('HSET', KEYS[1], unpack(ARGV, 3))
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
";

/// The field that counts how often the others were forgotten.
pub(crate) const GENERATION: &str = "generation";

/// Until when PostgreSQL is asked every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A change of the credential is about to be committed.
    Committed,
    /// It was, or it was not: what PostgreSQL says from now on may be stored.
    Now,
}

/// Stores the fields, unless they were forgotten since `generation` was read.
pub(crate) async fn put(
    pool: &RedisPool,
    key: String,
    generation: &str,
    fields: &[(&str, &str)],
) -> Result<(), LogError> {
    let script = redis::Script::new(PUT);
    let mut call = script.key(key);
    call.arg(generation).arg(LIFETIME).arg(fields);
    Ok(call.invoke_async(&mut pool.get().await?).await?)
}

/// Forgets the fields and publishes the message.
pub(crate) async fn forget(
    pool: &RedisPool,
    key: String,
    until: Until,
    channel: String,
    message: String,
) -> Result<(), LogError> {
    let script = redis::Script::new(FORGET);
    let mut call = script.key(key);
    let hold = if until == Until::Committed { HOLD } else { 0 };
    call.arg(LIFETIME).arg(channel).arg(message).arg(hold);
    Ok(call.invoke_async(&mut pool.get().await?).await?)
}
