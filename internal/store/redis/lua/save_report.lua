-- Saves one report with its slices. All keys are in one slot. It may run twice for one report: every write is of an
-- absolute value under a (boot, seq) comparison.
--
-- KEYS  stats, instance, seen, slices:1m, slices:10m, slices:1h
-- ARGV  the names in `arg` below, then three counted lists: outcome, count; stats field, value; and the slices, sorted by
--       size, boot and start: size (1 to 3), start, boot, body
-- Reply result, now in ms, then size, boot, until of every boot and size that was asked for.
local STATS, INSTANCE, SEEN = KEYS[1], KEYS[2], KEYS[3]
local SLICES = {KEYS[4], KEYS[5], KEYS[6]}
local SIZE = {'1m', '10m', '1h'}
local STEP = {60, 600, 3600}
local MAX_FIELDS = {4096, 4096, 8192} -- per slices hash: several times what honest boots fill

local pos = 0
local function take()
  pos = pos + 1
  return ARGV[pos]
end
local function int(n) return string.format('%.0f', n) end

local id, boot, seq = take(), take(), tonumber(take())
local sent_at, max_future = tonumber(take()), tonumber(take())
local role, token, name, dns = take(), take(), take(), take()
local ttl, channel = tonumber(take()), take()
local keep = {tonumber(take()), tonumber(take()), tonumber(take())}
local ahead, minutes_back, minutes_ahead = tonumber(take()), tonumber(take()), tonumber(take())
local boots_kept, boots_max, boots_for = tonumber(take()), tonumber(take()), tonumber(take())
local max_exact = tonumber(take())

local time = redis.call('TIME')
local now = tonumber(time[1])
local now_ms = now * 1000 + math.floor(tonumber(time[2]) / 1000)

if sent_at > now_ms + max_future then return {'future', int(now_ms)} end

local row = redis.call('HMGET', INSTANCE, 'role', 'boot_id', 'seq', 'boot:' .. boot)
local old_role, old_boot, old_seq, state = row[1], row[2], tonumber(row[3] or 0), row[4]
if state and string.sub(state, 1, 1) == 'f' then return {'forgotten', int(now_ms)} end
if old_role and old_role ~= role then return {'not_yours', int(now_ms)} end

local result = 'stored'
if state then
  result = 'ended'
elseif old_boot == boot and seq == old_seq then
  result = 'duplicate'
elseif old_boot == boot and seq < old_seq then
  result = 'older'
end

-- Former boots are kept so that a late report of one changes nothing, but not without bound.
local function prune_boots(boots)
  if #boots <= boots_kept then return end
  table.sort(boots, function(a, b) return a.at < b.at end)
  local left = #boots
  for _, b in ipairs(boots) do
    if left <= boots_kept or (left <= boots_max and b.at >= now_ms - boots_for * 1000) then return end
    redis.call('HDEL', INSTANCE, b.field)
    left = left - 1
  end
end

local function end_boot(ended)
  local all = redis.call('HGETALL', INSTANCE)
  local sums, boots = {}, {{field = 'boot:' .. ended, at = now_ms}}
  for i = 1, #all, 2 do
    local field, value = all[i], all[i + 1]
    local outcome = string.match(field, '^cur:(.*)$')
    if outcome then sums[outcome] = (sums[outcome] or 0) + tonumber(value) end
    outcome = string.match(field, '^end:(.*)$')
    if outcome then sums[outcome] = (sums[outcome] or 0) + tonumber(value) end
    if string.sub(field, 1, 5) == 'boot:' then boots[#boots + 1] = {field = field, at = tonumber(string.sub(value, 2))} end
  end
  redis.call('HSET', INSTANCE, 'boot:' .. ended, 'e' .. int(now_ms))
  for outcome, sum in pairs(sums) do
    redis.call('HSET', INSTANCE, 'end:' .. outcome, int(math.min(sum, max_exact)))
    redis.call('HDEL', INSTANCE, 'cur:' .. outcome)
  end
  prune_boots(boots)
end

local minutes = redis.call('HGET', STATS, 'minutes') or ''
local outcomes = tonumber(take())
if result == 'stored' then
  if old_boot and old_boot ~= boot then end_boot(old_boot) end
  local set = {'name', name, 'role', role, 'dns', dns, 'token_id', token, 'boot_id', boot, 'seq', int(seq),
    'last_seen', int(now_ms), 'expires_at', int(now_ms + ttl)}
  for _ = 1, outcomes do
    local field, count = 'cur:' .. take(), take()
    -- Only lifetime promises never to go back, so a boot that counts backwards does not take it along.
    local had = redis.call('HGET', INSTANCE, field)
    if had and tonumber(had) > tonumber(count) then count = had end
    if had or count ~= '0' then
      set[#set + 1] = field
      set[#set + 1] = count
    end
  end
  redis.call('HSET', INSTANCE, unpack(set))
  redis.call('HSETNX', INSTANCE, 'first_seen', int(now_ms))
  redis.call('HDEL', INSTANCE, 'forgotten')
  redis.call('PERSIST', INSTANCE)
  local fields = {'received_at', int(now_ms)}
  for _ = 1, 2 * tonumber(take()) do fields[#fields + 1] = take() end
  redis.call('DEL', STATS)
  redis.call('HSET', STATS, unpack(fields))
  redis.call('PEXPIRE', STATS, ttl)
  redis.call('ZADD', SEEN, now_ms, id)
else
  pos = pos + 2 * outcomes
  pos = pos + 2 * tonumber(take())
end

-- Removes slices that are too old, and what is known of boots that have no others. A scan of the hash, so it waits until
-- ten slices' worth has aged.
local function trim(k, must)
  local cutoff = now - keep[k]
  local field = 'trim:' .. SIZE[k]
  local last = tonumber(redis.call('HGET', INSTANCE, field))
  if last and not must and cutoff - last < 10 * STEP[k] then return end
  redis.call('HSET', INSTANCE, field, int(cutoff))
  if keep[k] == 0 then redis.call('DEL', SLICES[k]) end
  local old = {}
  local function flush()
    if #old > 0 then redis.call('HDEL', SLICES[k], unpack(old)) end
    old = {}
  end
  for _, f in ipairs(redis.call('HKEYS', SLICES[k])) do
    if tonumber(string.match(f, '^%d+')) < cutoff then old[#old + 1] = f end
    if #old == 1000 then flush() end
  end
  flush()
  local current = redis.call('HGET', INSTANCE, 'boot_id')
  local prefix = 'until:' .. SIZE[k] .. ':'
  local all = redis.call('HGETALL', INSTANCE)
  for i = 1, #all, 2 do
    local f = all[i]
    if string.sub(f, 1, #prefix) == prefix and f ~= prefix .. current and tonumber(all[i + 1]) < cutoff then
      redis.call('HDEL', INSTANCE, f)
    end
  end
end
for k = 1, 3 do trim(k, keep[k] == 0 and redis.call('EXISTS', SLICES[k]) == 1) end

local reply = {result, int(now_ms)}
local listed = {}
-- Moves until over the slices that are there, and tells where it stands. sent is a set of starts that count as present.
local function advance(k, b, first, sent, kept, forgotten)
  listed[k .. b] = true
  local field = 'until:' .. SIZE[k] .. ':' .. b
  local had = not forgotten and tonumber(redis.call('HGET', INSTANCE, field)) or nil
  local u = had or first
  if not u then return end
  if first then
    -- A hole that is older than what is kept can never be filled.
    local oldest = keep[k] == 0 and first or math.ceil((now - keep[k]) / STEP[k]) * STEP[k]
    u = math.max(u, math.min(oldest, first))
    while sent[u] or (not forgotten and redis.call('HEXISTS', SLICES[k], int(u) .. ':' .. b) == 1) do u = u + STEP[k] end
    if u ~= had and (had or kept) then redis.call('HSET', INSTANCE, field, int(u)) end
  end
  reply[#reply + 1] = int(k)
  reply[#reply + 1] = b
  reply[#reply + 1] = int(u)
end

local recent, recent_set = {}, {}
local function add_recent(entry)
  local start = tonumber(string.match(entry, '^%d+'))
  if #recent == 64 or recent_set[entry] or start < now - minutes_back or start > now + minutes_ahead then return end
  recent_set[entry] = true
  recent[#recent + 1] = entry
end
for entry in string.gmatch(minutes, '[^,]+') do add_recent(entry) end

local wrote = false
local left = tonumber(take())
local k, b, first, sent, kept, forgotten, room
local function finish_group()
  if k then advance(k, b, first, sent, kept, forgotten) end
end
while left > 0 do
  left = left - 1
  local nk, start, nb, body = tonumber(take()), tonumber(take()), take(), take()
  if nk ~= k or nb ~= b then
    finish_group()
    k, b, first, sent, kept = nk, nb, start, {}, false
    local s = redis.call('HGET', INSTANCE, 'boot:' .. b)
    forgotten = s and string.sub(s, 1, 1) == 'f'
    room = MAX_FIELDS[k] - redis.call('HLEN', SLICES[k])
    if room < 64 then
      trim(k, true)
      room = MAX_FIELDS[k] - redis.call('HLEN', SLICES[k])
    end
  end
  if forgotten or keep[k] == 0 or start < now - keep[k] or start > now + ahead then
    sent[start] = true -- not wanted, so it must not be sent again
  elseif room > 0 then
    local entry = int(start) .. ':' .. b
    room = room - redis.call('HSET', SLICES[k], entry, body)
    sent[start], kept, wrote = true, true, true
    if k == 1 then add_recent(entry) end
  end
end
finish_group()
for i = 1, 3 do
  if not listed[i .. boot] then advance(i, boot) end
end

if #recent > 0 and redis.call('EXISTS', STATS) == 1 then
  redis.call('HSET', STATS, 'minutes', table.concat(recent, ','))
end
if channel ~= '' and (result == 'stored' or wrote) then redis.pcall('PUBLISH', channel, 'instance ' .. id) end
return reply
