-- Shared head: whose presence changed is noted with the time of that, in microseconds.
local now = redis.call('TIME')
local function changed(key, user)
  redis.call('ZADD', key, now[1] .. string.format('%06d', now[2]), user)
end
local function user_of(member) return string.match(member, '^(%S+) ') end
