//! The scripts by which the ingester changes the log; every check comes before the first write.
//!
//! A `#!lua` script without flags is refused as a whole when memory is short; a plain EVAL is not, it would
//! stop half-way (Redis manual, "Eval scripts", script flags).

/// Shared head: fails unless this writer's token is the one that Redis saw last.
///
/// Numbers are compared as strings padded to 20 digits: Lua's doubles lose integers beyond 2^53.
const PRELUDE: &str = r"
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

/// KEYS: token, state, retired. ARGV: token, then fields and values. Replaces the state: a new epoch, and the one before
/// it is noted as retired.
const OPEN: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
local old = redis.call('HGET', KEYS[2], 'epoch')
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 2))
if old and old ~= redis.call('HGET', KEYS[2], 'epoch') then
  redis.call('HSET', KEYS[3], old, redis.call('TIME')[1])
end
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
  -- Not of every key: what was skipped after a lost answer may have left a set among them.
  local at = 6
  while at <= #ARGV do
    local is_entry, key = ARGV[at] == 'A', KEYS[3 + ARGV[at + 1]]
    if is_entry and tops[key] == nil then
      local id = top(key)
      tops[key] = id or false
      if id and pad(string.match(id, '^(%d+)-')) > pad(retried) then
        return orphaned(key, retried .. '-0')
      end
    end
    at = at + (is_entry and 4 + ARGV[at + 3] or 3 + ARGV[at + 2])
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

/// KEYS: token, state, commits. ARGV: token, epoch, commit, end, heartbeat or '', floor or ''. Moves the watermark, never
/// back and never past what the commit log has. The floor rises with it where a transaction was left out.
const PUBLISH: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
local state = redis.call('HMGET', KEYS[2], 'epoch', 'commit', 'end', 'base', 'floor')
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
if ARGV[6] ~= '' and pad(ARGV[6]) > pad(state[5]) then redis.call('HSET', KEYS[2], 'floor', ARGV[6]) end
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

/// KEYS: token, state, commits, then buckets, then sets. ARGV: token, epoch, floor, number of buckets, 'commits' or ''.
/// Raises the floor, then removes what lies at or below it from these buckets, the sets as a whole, and what lies below
/// it from the commit log where the last argument says so.
///
/// It may run when memory is short: else nothing would ever be freed. The commit entry at the floor stays, so the
/// commit log always has a newest entry.
const TRIM: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
local state = redis.call('HMGET', KEYS[2], 'epoch', 'commit', 'floor')
if state[1] ~= ARGV[2] then
  return redis.error_reply('DIVERGED the epoch changed')
end
if pad(ARGV[3]) > pad(state[2]) then
  return redis.error_reply('DIVERGED the floor would pass the watermark')
end
if pad(ARGV[3]) > pad(state[3]) then redis.call('HSET', KEYS[2], 'floor', ARGV[3]) end
local removed = 0
for i = 4, #KEYS do
  local is_set = i > 3 + ARGV[4]
  if not is_set then
    removed = removed + redis.call('XTRIM', KEYS[i], 'MINID', '=', ARGV[3] .. '-18446744073709551615')
  end
  if is_set or redis.call('XLEN', KEYS[i]) == 0 then redis.call('UNLINK', KEYS[i]) end
end
if ARGV[5] == 'commits' then redis.call('XTRIM', KEYS[3], 'MINID', '=', ARGV[3] .. '-0') end
return removed
";

/// KEYS: token, state, from, to. ARGV: token, epoch, id after which to begin, most entries, ids to leave out. Copies a
/// stretch of a stream and returns the id of its last entry, or nil where there was none.
const COPY: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[2] then
  return redis.error_reply('DIVERGED the epoch changed')
end
local left_out, last = {}, false
for i = 5, #ARGV do left_out[ARGV[i]] = true end
for _, entry in ipairs(redis.call('XRANGE', KEYS[3], '(' .. ARGV[3], '+', 'COUNT', ARGV[4])) do
  last = entry[1]
  if not left_out[last] then redis.call('XADD', KEYS[4], last, unpack(entry[2])) end
end
return last
";

/// KEYS: token, state, original, copy. ARGV: token, epoch, mark, id of the last entry that was looked at, entries that
/// were left out. Raises the compaction mark and puts the copy in the original's place, if it is complete.
const SWAP: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
local state = redis.call('HMGET', KEYS[2], 'epoch', 'commit', 'compacted')
if state[1] ~= ARGV[2] then
  return redis.error_reply('DIVERGED the epoch changed')
end
if pad(ARGV[3]) > pad(state[2]) then
  return redis.error_reply('DIVERGED the compaction mark would pass the watermark')
end
local missing = redis.call('XLEN', KEYS[3]) - redis.call('XLEN', KEYS[4])
if top(KEYS[3]) ~= ARGV[4] or top(KEYS[4]) ~= ARGV[4] or missing ~= tonumber(ARGV[5]) then return 0 end
if pad(ARGV[3]) > pad(state[3]) then redis.call('HSET', KEYS[2], 'compacted', ARGV[3]) end
redis.call('RENAME', KEYS[4], KEYS[3])
return 1
";

/// KEYS: token, state, retired, then keys of the retired epoch. ARGV: token, the retired epoch, 'done' or ''. Removes the
/// keys of an epoch that is no longer the log's, and at the end its name.
const SWEEP: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
if redis.call('HGET', KEYS[2], 'epoch') == ARGV[2] then
  return redis.error_reply('DIVERGED this epoch is the one in use')
end
if #KEYS > 3 then redis.call('UNLINK', unpack(KEYS, 4)) end
if ARGV[3] == 'done' then redis.call('HDEL', KEYS[3], ARGV[2]) end
";

/// KEYS: leases. ARGV: member, seconds. Keeps a snapshot's part of the log for a while, by Redis's own clock.
const LEASE: &str = r"
redis.call('ZADD', KEYS[1], redis.call('TIME')[1] + ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2] * 2)
";

/// KEYS: leases. Forgets the leases that have ended and returns the others.
const HELD: &str = r"
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
";

/// KEYS: token, state. ARGV: token, epoch, end. Notes a watermark's end on the connection that then asks what is on disk,
/// if the log reaches so far: a server that lost its tail can vouch only for what it still has.
const PROVE: &str = r"
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
local state = redis.call('HMGET', KEYS[2], 'epoch', 'end')
if state[1] ~= ARGV[2] then
  return redis.error_reply('DIVERGED the epoch changed')
end
if pad(state[2]) < pad(ARGV[3]) then
  return redis.error_reply('DIVERGED the watermark fell back')
end
redis.call('HSET', KEYS[2], 'proven', ARGV[3])
";

/// Refused as a whole when memory is short. For what adds to the log.
const FULL: &str = "#!lua";
/// May run when memory is short, because it frees some, or takes none and comes before what frees some: a session that
/// cannot begin never trims.
const ALWAYS: &str = "#!lua flags=allow-oom";

fn script(shebang: &str, body: &str) -> redis::Script {
    redis::Script::new(&format!("{shebang}{PRELUDE}{body}"))
}

/// The compiled texts of the writer's scripts.
#[derive(Debug)]
pub struct Scripts {
    pub claim: redis::Script,
    pub open: redis::Script,
    pub append: redis::Script,
    pub publish: redis::Script,
    pub ready: redis::Script,
    pub give_up: redis::Script,
    pub trim: redis::Script,
    pub copy: redis::Script,
    pub swap: redis::Script,
    pub sweep: redis::Script,
    pub held: redis::Script,
    pub prove: redis::Script,
}

impl Scripts {
    pub fn new() -> Self {
        Scripts {
            claim: script(ALWAYS, CLAIM),
            open: script(ALWAYS, OPEN),
            append: script(FULL, APPEND),
            publish: script(ALWAYS, PUBLISH),
            ready: script(ALWAYS, READY),
            give_up: script(ALWAYS, GIVE_UP),
            trim: script(ALWAYS, TRIM),
            copy: script(FULL, COPY),
            swap: script(ALWAYS, SWAP),
            sweep: script(ALWAYS, SWEEP),
            held: script(ALWAYS, HELD),
            prove: script(ALWAYS, PROVE),
        }
    }
}

/// The reader's one script that writes.
pub fn lease() -> redis::Script {
    script(FULL, LEASE)
}
