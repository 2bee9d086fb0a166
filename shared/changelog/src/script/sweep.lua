-- KEYS: token, state, retired, then keys of the retired epoch. ARGV: token, the retired epoch, 'done' or ''. Removes the
-- keys of an epoch that is no longer the log's, and at the end its name.
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
if redis.call('HGET', KEYS[2], 'epoch') == ARGV[2] then
  return redis.error_reply('DIVERGED this epoch is the one in use')
end
if #KEYS > 3 then redis.call('UNLINK', unpack(KEYS, 4)) end
if ARGV[3] == 'done' then redis.call('HDEL', KEYS[3], ARGV[2]) end
