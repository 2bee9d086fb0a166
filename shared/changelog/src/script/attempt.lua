-- KEYS: counter. ARGV: what to do, milliseconds until an attempt is forgotten, attempts at once.
-- The counter holds when all its attempts are forgotten, in milliseconds since 1970. Returns whether one more is allowed, how many
-- more, and the milliseconds until one is.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local step, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local forgotten = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local wait = math.max(forgotten - (most - 1) * step - now, 0)
local is_allowed = wait == 0
if ARGV[1] == 'return' then
  forgotten = math.max(forgotten - step, now)
elseif ARGV[1] == 'count' or (ARGV[1] == 'take' and is_allowed) then
  forgotten = math.min(forgotten + step, now + most * step)
end
if ARGV[1] ~= 'look' and is_allowed or ARGV[1] == 'return' then
  local left = math.max(math.ceil(forgotten - now), 1)
  redis.call('SET', KEYS[1], string.format('%.0f', forgotten), 'PX', left)
end
return {is_allowed and 1 or 0, math.floor((now + most * step - forgotten) / step), math.ceil(wait)}
