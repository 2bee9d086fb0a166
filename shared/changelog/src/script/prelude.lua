-- Shared head: fails unless this writer's token is the one that Redis saw last.
--
-- Numbers are compared as strings padded to 20 digits: Lua's doubles lose integers beyond 2^53.
local function pad(digits) return string.rep('0', 20 - #digits) .. digits end
local function padded(id)
  local commit, ordinal = string.match(id, '^(%d+)-(%d+)$')
  return pad(commit) .. pad(ordinal)
end
local function top(stream)
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  return newest[1] and newest[1][1]
end
local function check_token(key, token)
  local held = redis.call('GET', key)
  if held and pad(held) > pad(token) then
    return redis.error_reply('FENCED a higher token was seen')
  end
  if held ~= token then
    return redis.error_reply('DIVERGED the fencing token is not the one this writer claimed')
  end
end
