-- Replaces the policy if it is still the one that the caller read.
-- KEYS  policy
-- ARGV  hash that the current one must have ('' = there is none), new hash, new policy, channel
-- Reply 'conflict', or revision, hash, updated_at in ms and policy as they are now
local POLICY = KEYS[1]
local current = redis.call('HMGET', POLICY, 'revision', 'hash', 'updated_at', 'policy')
if current[2] == ARGV[2] then return current end
if (current[2] or '') ~= ARGV[1] then return 'conflict' end

local time = redis.call('TIME')
local revision = string.format('%.0f', tonumber(current[1] or 0) + 1)
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
redis.call('HSET', POLICY, 'revision', revision, 'hash', ARGV[2], 'updated_at', now, 'policy', ARGV[3])
if ARGV[4] ~= '' then redis.pcall('PUBLISH', ARGV[4], 'policy') end
return {revision, ARGV[2], now, ARGV[3]}
