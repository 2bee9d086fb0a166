-- KEYS: token, state, retired. ARGV: token, then fields and values. Replaces the state: a new epoch, and the one before
-- it is noted as retired.
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
local old = redis.call('HGET', KEYS[2], 'epoch')
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 2))
if old and old ~= redis.call('HGET', KEYS[2], 'epoch') then
  redis.call('HSET', KEYS[3], old, redis.call('TIME')[1])
end
