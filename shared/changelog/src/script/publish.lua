-- KEYS: token, state, commits. ARGV: token, epoch, commit, end, heartbeat or '', floor or '', channel, then fields and values
-- of what the log is fed from. Moves the watermark, never
-- back and never past what the commit log has. The floor rises with it where a transaction was left out.
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
local state = redis.call('HMGET', KEYS[2], 'epoch', 'commit', 'end', 'base', 'floor', 'heartbeat')
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
-- After a fail-over the state names one that is newer than those on their way.
local function sequence(beat) return pad(string.match(beat or '', '^%d+') or '0') end
if ARGV[5] ~= '' and sequence(ARGV[5]) > sequence(state[6]) then redis.call('HSET', KEYS[2], 'heartbeat', ARGV[5]) end
if ARGV[6] ~= '' and pad(ARGV[6]) > pad(state[5]) then redis.call('HSET', KEYS[2], 'floor', ARGV[6]) end
for i = 8, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
-- A hint to those that wait; it may be lost or forbidden, and nothing depends on it.
if ARGV[3] ~= state[2] then redis.pcall('PUBLISH', ARGV[7], ARGV[3]) end
