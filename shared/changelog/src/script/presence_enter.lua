-- KEYS: presence, present, changed. ARGV: seconds, members. Believes members for so long; the first one of a user brings
-- the user.
local believed = now[1] + ARGV[1]
for i = 2, #ARGV do
  if redis.call('ZADD', KEYS[1], believed, ARGV[i]) == 1 then
    local user = user_of(ARGV[i])
    if redis.call('HINCRBY', KEYS[2], user, 1) == 1 then changed(KEYS[3], user) end
  end
end
