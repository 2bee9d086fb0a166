-- KEYS: token, state. ARGV: token, epoch, end. Notes a watermark's end on the connection that then asks what is on disk,
-- if the log reaches so far: a server that lost its tail can vouch only for what it still has.
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
