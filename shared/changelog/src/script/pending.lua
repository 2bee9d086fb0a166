-- KEYS: shared, then each reader's bucket. ARGV: last id, most, then each reader's first id. Counts the entries of both
-- buckets that each reader has before it, up to `most`, without sending one of them.
local counts, step = {}, 16
local function count(key, first, left)
  local n = 0
  while n < left do
    local found = redis.call('XRANGE', key, first, ARGV[1], 'COUNT', math.min(step, left - n))
    n = n + #found
    if #found < step then break end
    first = '(' .. found[#found][1]
  end
  return n
end
local most = tonumber(ARGV[2])
for reader = 2, #KEYS do
  local first = ARGV[reader + 1]
  local own = count(KEYS[reader], first, most)
  counts[reader - 1] = own + count(KEYS[1], first, most - own)
end
return counts
