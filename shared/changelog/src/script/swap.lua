-- KEYS: token, state, original, copy. ARGV: token, epoch, mark, id of the last entry that was looked at, entries that
-- were left out. Raises the compaction mark and puts the copy in the original's place, if it is complete.
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
