-- KEYS: token, webhook. ARGV: token, position. Notes up to where the webhook was told; only the tenant's ingester may.
local refused = check_token(KEYS[1], ARGV[1])
if refused then return refused end
redis.call('SET', KEYS[2], ARGV[2])
