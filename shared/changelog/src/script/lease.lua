-- KEYS: leases. ARGV: member, seconds. Keeps a snapshot's part of the log for a while, by Redis's own clock.
redis.call('ZADD', KEYS[1], redis.call('TIME')[1] + ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2] * 2)
