-- Writes what the live page shows of a process that counts. It runs right after the token of some
-- visits, once a second at most. A copy that comes twice, or late, adds nothing.
--
-- KEYS  the process's record; the names; each history
-- ARGV  "SHOWN AGE": how many visits the process had shown before these, and how many seconds ago
--       it began; its id, hostname, version and labels; its version as one word; and for each
--       history "STEP STEPS": the seconds of a step, and the number of steps
--
-- The reply is OK, or the last error. After an error the script still writes the rest.

if redis.replicate_commands then redis.replicate_commands() end -- Redis 3.2 to 4 need it for TIME

local record, names = KEYS[1], KEYS[2]
local DAY, OFF = 86400, 1 -- seconds; a time that differs by more than OFF is from another clock
local VERSIONS, OTHERS = 8, '%E2%80%A6' -- versions that a step tells apart; the name of all others
local MOST = 999 -- the script looks at the signs of MOST + 1 names, as many as readers show
local shown, age = string.match(ARGV[1], '^(%d+) ([%d.]+)$')
local refused

local function try(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  refused = reply.err
  return false
end

local time = try('TIME')
if not time then return {err = refused} end
local now = time[1] + time[2] / 1e6

-- Adds visits to a step of a history: the step that contains a time. The text of a step is
-- "START VERSION=VISITS ...".
local function add(history, step, steps, time, version, visits)
  local start = math.floor(time / step) * step
  local slot = start / step % steps
  local kept = try('HGET', history, slot) or ''
  local begun = tonumber(string.match(kept, '^%d+') or 0)
  if begun > start and begun <= now then return end -- a later step already has this slot
  if begun ~= start then kept = tostring(start) end
  local sum, others = visits, 0
  local rest = string.gsub(kept, ' (%S*)=(%d+)', function(one, number)
    if one ~= version then others = others + 1 return end
    sum = sum + number
    return ''
  end)
  if rest == kept and others >= VERSIONS and version ~= OTHERS then
    return add(history, step, steps, time, OTHERS, visits)
  end
  try('HSET', history, slot, rest .. ' ' .. version .. '=' .. sum)
  try('EXPIRE', history, step * steps)
end

-- Visits since the last sign count at the time of that sign. So a pause does not move them.
local signed, before = string.match(try('HGET', record, 'marked') or '', '^([%d.]+) (%d+)$')
local news = signed and shown - before or 0
for i = 3, news > 0 and #KEYS or 0 do
  local step, steps = string.match(ARGV[i + 4], '^(%d+) (%d+)$')
  add(KEYS[i], step, steps, math.min(signed, now), ARGV[6], news)
end
if news >= 0 then try('HSET', record, 'marked', now .. ' ' .. shown) end

try('HSET', record, 'hostname', ARGV[3], 'version', ARGV[4], 'labels', ARGV[5])
local started = now - age
if math.abs((tonumber(try('HGET', record, 'started') or '') or 0) - started) > OFF then
  try('HSET', record, 'started', string.format('%.3f', started))
end
try('EXPIRE', record, DAY)

-- If the clock was set back, signs lie in the future. Then the newest sign moves to now, and the
-- others move by as much.
local newest = try('ZREVRANGE', names, 0, 0, 'WITHSCORES') or {}
local ahead = (newest[2] or now) - now
if ahead > OFF then
  newest = try('ZREVRANGE', names, 0, MOST, 'WITHSCORES') or {}
  for i = 1, #newest, 2 do
    if newest[i + 1] - now > OFF then
      try('ZADD', names, math.min(now, newest[i + 1] - ahead), newest[i])
    end
  end
end
try('ZADD', names, now, ARGV[2])
try('ZREMRANGEBYSCORE', names, '-inf', now - DAY)
try('EXPIRE', names, DAY)
return refused and {err = refused} or {ok = 'OK'}
