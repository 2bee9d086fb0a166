-- KEYS: token, state, commits, then buckets, then sets. ARGV: token, epoch, floor, number of buckets, 'commits' or ''.
-- Raises the floor, then removes what lies at or below it from these buckets, the sets as a whole, and what lies below
-- it from the commit log where the last argument says so.
--
-- It may run when memory is short: else nothing would ever be freed. The commit entry at the floor stays, so the
-- commit log always has a newest entry.
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
