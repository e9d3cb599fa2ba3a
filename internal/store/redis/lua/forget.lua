-- Removes an instance and leaves a tombstone: the boots that are refused from now on.
-- KEYS  stats, instance, seen, slices:1m, slices:10m, slices:1h
-- ARGV  id, nonce of this call, how long the tombstone stays in ms, channel
local STATS, INSTANCE, SEEN = KEYS[1], KEYS[2], KEYS[3]
local id, nonce, stays, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local all = redis.call('HGETALL', INSTANCE)
if #all == 0 then return 'not_found' end
local time = redis.call('TIME')
local state = 'f' .. string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))

local boots = {}
for i = 1, #all, 2 do
  local field, value = all[i], all[i + 1]
  if field == 'forgotten' then
    if value == nonce then return 'ok' end -- the same call again, whose answer was lost
    return 'not_found'
  end
  if field == 'boot_id' then boots['boot:' .. value] = state end
  local boot = string.match(field, '^until:%w+:(.*)$')
  if boot then boots['boot:' .. boot] = state end
end
for i = 1, #all, 2 do
  -- When it ended still decides how long it is remembered.
  local at = string.sub(all[i], 1, 5) == 'boot:' and string.match(all[i + 1], '%d+')
  if at then boots[all[i]] = 'f' .. at end
end

redis.call('HSET', INSTANCE, 'forgotten', nonce)
for i = 1, #all, 2 do
  if all[i] ~= 'forgotten' then redis.call('HDEL', INSTANCE, all[i]) end
end
for field, value in pairs(boots) do redis.call('HSET', INSTANCE, field, value) end
redis.call('PEXPIRE', INSTANCE, stays)
redis.call('DEL', STATS, KEYS[4], KEYS[5], KEYS[6])
redis.call('ZREM', SEEN, id)
if channel ~= '' then redis.pcall('PUBLISH', channel, 'instance ' .. id) end
return 'ok'
