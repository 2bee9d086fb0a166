-- KEYS: token, state. ARGV: token, epoch, reason. No session will continue this log.
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[2] then
  return redis.error_reply('DIVERGED the epoch changed')
end
redis.call('HSET', KEYS[2], 'broken', ARGV[3])
