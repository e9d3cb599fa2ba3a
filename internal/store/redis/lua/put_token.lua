-- Replaces a token if it is still what the caller read, and keeps the index of which tokens hold an instance.
-- KEYS  tokens, index (instance → ids of tokens that are not revoked, each followed by a space)
-- ARGV  id, old ('' = there is none), new, channel, claim ('' or the instance that no other token may hold), number of
--       instances that it holds from now on, those instances, then instances that it no longer holds
local TOKENS, HELD = KEYS[1], KEYS[2]
local id, old, new, channel, claim = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local adds = tonumber(ARGV[6])

local function others(instance)
  local rest = ''
  for holder in string.gmatch(redis.call('HGET', HELD, instance) or '', '%S+') do
    if holder ~= id then rest = rest .. holder .. ' ' end
  end
  return rest
end

local current = redis.call('HGET', TOKENS, id) or ''
if current == new then return 'ok' end -- the same call again, whose answer was lost
if current ~= old then return 'changed' end
if claim ~= '' and others(claim) ~= '' then return 'held' end

redis.call('HSET', TOKENS, id, new)
for i = 7, #ARGV do
  local rest = others(ARGV[i])
  if i < 7 + adds then rest = rest .. id .. ' ' end
  if rest == '' then
    redis.call('HDEL', HELD, ARGV[i])
  else
    redis.call('HSET', HELD, ARGV[i], rest)
  end
end
if channel ~= '' then redis.pcall('PUBLISH', channel, 'tokens') end
return 'ok'
