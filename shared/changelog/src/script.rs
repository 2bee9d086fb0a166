//! The scripts by which the ingester changes the log; every check comes before the first write.
//!
//! A `#!lua` script without flags is refused as a whole when memory is short; a plain EVAL is not, it would
//! stop half-way (Redis manual, "Eval scripts", script flags).

/// Shared head: fails unless this writer's token is the one that Redis saw last.
///
/// Numbers are compared as strings padded to 20 digits: Lua's doubles lose integers beyond 2^53.
const PRELUDE: &str = r"#!lua
local function pad(digits) return string.rep('0', 20 - #digits) .. digits end
local function padded(id)
  local commit, ordinal = string.match(id, '^(%d+)-(%d+)$')
  return pad(commit) .. pad(ordinal)
end
local function top(stream)
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  return newest[1] and newest[1][1]
end
local function check_token(key, token)
  local held = redis.call('GET', key)
  if held and pad(held) > pad(token) then
    return redis.error_reply('FENCED a higher token was seen')
  end
  if held ~= token then
    return redis.error_reply('DIVERGED the fencing token is not the one this writer claimed')
  end
end
";

/// KEYS: token. ARGV: token. Takes the tenant over unless a higher token was seen.
const CLAIM: &str = r"
local held = redis.call('GET', KEYS[1])
if held and pad(held) > pad(ARGV[1]) then
  return redis.error_reply('FENCED a higher token was seen')
end
redis.call('SET', KEYS[1], ARGV[1])
";

/// KEYS: token, state. ARGV: token, then fields and values. Replaces the state: a new epoch.
const OPEN: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 2))
";

/// KEYS: token, state, commits, then targets. ARGV: token, epoch, predecessor, retried commit or '', the highest
/// commit of the batch, commands. Stores a batch: `A target id n field value …` is an XADD, `S target n member …` an
/// SADD.
///
/// Before its first write it notes how high the log will reach, and an entry that lies above the ones to be stored
/// is noted too: such a log is never continued.
const APPEND: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
local state = redis.call('HMGET', KEYS[2], 'epoch', 'base', 'top')
if state[1] ~= ARGV[2] then
  return redis.error_reply('DIVERGED the epoch changed')
end
local newest = top(KEYS[3]) or (state[2] .. '-0')
if newest ~= ARGV[3] .. '-0' then
  return redis.error_reply('DIVERGED the newest commit is ' .. newest)
end
local function orphaned(key, id)
  redis.call('HSET', KEYS[2], 'broken', 'it holds entries above those that come next')
  return redis.error_reply('DIVERGED entries above ' .. id .. ' are stored in ' .. key)
end
local retried = ARGV[4]
local tops = {}
if retried ~= '' then
  for i = 4, #KEYS do
    local id = top(KEYS[i])
    tops[KEYS[i]] = id or false
    if id and pad(string.match(id, '^(%d+)-')) > pad(retried) then
      return orphaned(KEYS[i], retried .. '-0')
    end
  end
end
if pad(ARGV[5]) > pad(state[3]) then redis.call('HSET', KEYS[2], 'top', ARGV[5]) end
local at, last, added = 6, #ARGV, 0
while at <= last do
  local key, n = KEYS[3 + ARGV[at + 1]]
  if ARGV[at] == 'A' then
    local id = ARGV[at + 2]
    n = tonumber(ARGV[at + 3])
    local stored = string.match(id, '^(%d+)-') == retried and tops[key] and padded(tops[key]) >= padded(id)
    if not stored then
      local reply = redis.pcall('XADD', key, id, unpack(ARGV, at + 4, at + 3 + n))
      if type(reply) == 'table' and reply.err then
        if string.find(reply.err, 'equal or smaller', 1, true) then return orphaned(key, id) end
        return reply
      end
      added = added + 1
    end
    at = at + 4 + n
  else
    n = tonumber(ARGV[at + 2])
    redis.call('SADD', key, unpack(ARGV, at + 3, at + 2 + n))
    at = at + 3 + n
  end
end
return added
";

/// KEYS: token, state, commits. ARGV: token, epoch, commit, end, heartbeat or ''. Moves the watermark, never back and
/// never past what the commit log has.
const PUBLISH: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
local state = redis.call('HMGET', KEYS[2], 'epoch', 'commit', 'end', 'base')
if state[1] ~= ARGV[2] then
  return redis.error_reply('DIVERGED the epoch changed')
end
if pad(ARGV[3]) < pad(state[2]) or pad(ARGV[4]) < pad(state[3]) then
  return redis.error_reply('DIVERGED the watermark is ahead of this writer')
end
local newest = top(KEYS[3]) or (state[4] .. '-0')
if padded(newest) < padded(ARGV[3] .. '-0') then
  return redis.error_reply('DIVERGED the newest commit is ' .. newest)
end
redis.call('HSET', KEYS[2], 'commit', ARGV[3], 'end', ARGV[4])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[2], 'heartbeat', ARGV[5]) end
";

/// KEYS: token, state. ARGV: token, epoch. From now on the epoch serves snapshots.
const READY: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[2] then
  return redis.error_reply('DIVERGED the epoch changed')
end
redis.call('HDEL', KEYS[2], 'unready_below')
";

/// KEYS: token, state. ARGV: token, epoch, reason. No session will continue this log.
const GIVE_UP: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[2] then
  return redis.error_reply('DIVERGED the epoch changed')
end
redis.call('HSET', KEYS[2], 'broken', ARGV[3])
";

/// The compiled texts of all scripts.
#[derive(Debug)]
pub struct Scripts {
    pub claim: redis::Script,
    pub open: redis::Script,
    pub append: redis::Script,
    pub publish: redis::Script,
    pub ready: redis::Script,
    pub give_up: redis::Script,
}

impl Scripts {
    pub fn new() -> Self {
        let script = |body: &str| redis::Script::new(&format!("{PRELUDE}{body}"));
        Scripts {
            claim: script(CLAIM),
            open: script(OPEN),
            append: script(APPEND),
            publish: script(PUBLISH),
            ready: script(READY),
            give_up: script(GIVE_UP),
        }
    }
}
