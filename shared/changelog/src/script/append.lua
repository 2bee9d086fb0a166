-- KEYS: token, state, commits, then targets. ARGV: token, epoch, predecessor, retried commit or '', the highest
-- commit of the batch, commands. Stores a batch: `A target id n field value …` is an XADD, `S target n member …` an
-- SADD.
--
-- Before its first write it notes how high the log will reach, and an entry that lies above the ones to be stored
-- is noted too: such a log is never continued.
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
