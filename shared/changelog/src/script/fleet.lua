-- KEYS: members, facts, leases, clock. ARGV: id, for how many milliseconds to be believed (0: it leaves), the longest pause
-- that counts, the seat it takes over, facts ('' for those it told before), what it saw last, how many tenants it gives
-- up, these, tenants it would take. Gives what changed last, the time in milliseconds, whether it was believed to live, and
-- where it has not seen that: everybody's facts, and who holds which tenant.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, lasts, seat, facts, seen = ARGV[1], tonumber(ARGV[2]), ARGV[4], ARGV[5], ARGV[6]
local function digits(number) return string.format('%.0f', number) end

-- A time in which nobody could ask, or by which the clock jumped, ends no membership.
local passed = now - (tonumber(redis.call('HGET', KEYS[4], 'asked') or '') or now)
local shift = 0
if passed < 0 or passed > tonumber(ARGV[3]) then shift = passed end

local ends = tonumber(redis.call('HGET', KEYS[1], id) or '')
local lived = ends ~= nil and ends + shift > now
if lasts > 0 and facts == '' and not lived then return {'', now, 0, false, false} end

local changed, lives, gone = false, {}, {}
local members = redis.call('HGETALL', KEYS[1])
for i = 1, #members, 2 do
  local member, until_when = members[i], members[i + 1] + shift
  if member ~= id then
    local its_seat = seat ~= '' and string.match(redis.call('HGET', KEYS[2], member) or '', '^%d+ (%S+)')
    if until_when <= now or its_seat == seat then
      gone[member] = true
      redis.call('HDEL', KEYS[1], member)
      redis.call('HDEL', KEYS[2], member)
    else
      lives[member] = true
      if shift ~= 0 then redis.call('HSET', KEYS[1], member, digits(until_when)) end
    end
  end
end

if lasts > 0 then
  lives[id] = true
  redis.call('HSET', KEYS[1], id, digits(now + lasts))
  if facts ~= '' then
    local since = lived and string.match(redis.call('HGET', KEYS[2], id) or '', '^%d+')
    redis.call('HSET', KEYS[2], id, (since or digits(now)) .. ' ' .. facts)
    changed = true
  end
else
  gone[id] = true
  redis.call('HDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
if next(gone) then
  changed = true
  local leases = redis.call('HGETALL', KEYS[3])
  for i = 1, #leases, 2 do
    if gone[leases[i + 1]] then redis.call('HDEL', KEYS[3], leases[i]) end
  end
end

local gives = tonumber(ARGV[7])
for i = 8, #ARGV do
  local holder = redis.call('HGET', KEYS[3], ARGV[i])
  if i < 8 + gives then
    if holder == id then
      redis.call('HDEL', KEYS[3], ARGV[i])
      changed = true
    end
  elseif lives[id] and not (holder and lives[holder]) then
    redis.call('HSET', KEYS[3], ARGV[i], id)
    changed = true
  end
end

redis.call('HSET', KEYS[4], 'asked', digits(now))
if changed then redis.call('HSET', KEYS[4], 'changed', time[1] .. string.format('%06d', time[2])) end
local newest = redis.call('HGET', KEYS[4], 'changed') or ''
if newest == seen then return {newest, now, lived and 1 or 0, false, false} end
return {newest, now, lived and 1 or 0, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3])}
