-- KEYS: token, state, from, to. ARGV: token, epoch, id after which to begin, most entries, ids to leave out. Copies a
-- stretch of a stream and returns the id of its last entry, or nil where there was none.
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
