-- KEYS: token. ARGV: token. Takes the tenant over unless a higher token was seen.
local held = redis.call('GET', KEYS[1])
if held and pad(held) > pad(ARGV[1]) then
  return redis.error_reply('FENCED a higher token was seen')
end
redis.call('SET', KEYS[1], ARGV[1])
