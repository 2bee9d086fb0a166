-- KEYS: present, changed. ARGV: users. Notes those who are not present as changed, whatever was heard of them.
for _, user in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[1], user) == 0 then changed(KEYS[2], user) end
end
