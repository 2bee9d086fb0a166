-- KEYS: presence. ARGV: seconds, members. Members stay for so long, in case they come back.
local believed = now[1] + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', believed, ARGV[i]) end
