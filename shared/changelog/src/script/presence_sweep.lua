-- KEYS: presence, present, changed. ARGV: most. Removes members that are believed no longer; the last one of a user takes
-- the user along. Returns them, and users with the time of a change that PostgreSQL has not heard of.
local gone = redis.call('ZRANGE', KEYS[1], '-inf', now[1], 'BYSCORE', 'LIMIT', 0, ARGV[1])
for _, member in ipairs(gone) do
  local user = user_of(member)
  redis.call('ZREM', KEYS[1], member)
  if redis.call('HINCRBY', KEYS[2], user, -1) <= 0 then
    redis.call('HDEL', KEYS[2], user)
    changed(KEYS[3], user)
  end
end
return {gone, redis.call('ZRANGE', KEYS[3], 0, ARGV[1] - 1, 'WITHSCORES')}
