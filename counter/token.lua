-- Applies a token once: a group of visits, known by its process and its sequence number.
--
-- KEYS  the counter; what this process keeps; the spare numbers; now and then, the names of the
--       processes, and each history
-- ARGV  "SEQUENCE VISITS SHOWN", where SHOWN is how many visits the process has shown so far; now
--       and then, "KNOWN UNSHOWN AGE", where KNOWN is the newest token whose numbers the process
--       knows, by default the one before, UNSHOWN how many of its last numbers nobody was shown,
--       and AGE the seconds since the process began; the process's id, hostname, version, labels,
--       and version as one word; and for each history "STEP STEPS", its seconds and how many it has
--
-- A token gets consecutive numbers, fewer than its visits where spare ones are left. The reply is
-- the last number where all is as usual, else "SEQUENCE LAST COUNT" of the token that Redis keeps,
-- and what went wrong beside.

local counter, process, spares, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local DAY, EXACT = 86400, 1e14 -- seconds; Lua writes larger numbers inexactly
local VERSIONS, OTHERS = 8, '%E2%80%A6' -- that a step of a history tells apart; the word for more
local sequence, visits, shown = string.match(ARGV[1], '^(%d+) (%d+) (%d+)$')
local fault = ''

local function try(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  fault = ' ' .. reply.err
  return false
end

-- What has been applied stays so, also when an older copy comes late.
local state = try('HGET', process, 'token') or ''
local newest, newest_last, newest_count = string.match(state, '^(%d+) (%-?%d+) (%d+)$')
if newest and tonumber(sequence) <= tonumber(newest) then
  try('EXPIRE', process, DAY) -- a write, for a WAIT that follows to wait for
  return {ok = state}
end

-- What an older token got, and nobody was shown, is spare.
local spare = try('GET', spares) or ''
local full = ARGV[2]
if full and newest then
  local known, unshown = string.match(full, '^(%d+) (%d+)')
  if newest ~= known then unshown = tonumber(newest) > tonumber(known) and newest_count or 0 end
  if tonumber(unshown) > 0 and math.abs(newest_last) < EXACT then
    redis.call('HSET', process, 'visits', shown) -- fails here, or not below
    spare = spare .. newest_last .. ' ' .. unshown .. ' '
  end
end

-- Spare numbers first. A counter that was set back gives them itself.
local last, count, total, spare_last, spare_count, others = nil, visits
if spare ~= '' then
  spare_last, spare_count, others = string.match(spare, '^(%-?%d+) (%d+) (.*)$')
end
if spare_last and tonumber(spare_last) > (tonumber(try('GET', counter) or 0) or 0) then
  try('SET', spares, '', 'EX', DAY)
  spare, spare_last = '', nil
end
if spare_last and visits ~= '0' then
  count = math.min(visits, spare_count)
  last = spare_last - spare_count + count
  spare_count = spare_count - count
  spare = (spare_count > 0 and spare_last .. ' ' .. spare_count .. ' ' or '') .. others
  redis.call('SET', spares, spare, 'EX', DAY)
else
  total = redis.call('INCRBY', counter, visits)
  last = math.abs(total) < EXACT and total or redis.call('GET', counter)
end

-- From here on nothing may fail: the numbers are taken.
local keeps = sequence .. ' ' .. last .. ' ' .. count
shown = shown + count
if not try('HSET', process, 'token', keeps, 'visits', shown) then
  try('DEL', process) -- whatever it is, it is ours
  if not try('HSET', process, 'token', keeps, 'visits', shown) then
    return {ok = '0 ' .. last .. ' ' .. count .. fault}
  end
end
if full or not newest then try('EXPIRE', process, DAY) end
if full then try('SET', spares, spare, 'EX', DAY) end
local time = full and visits ~= '0' and try('TIME')
if time then
  local now, before = time[1] + time[2] / 1e6, shown - count

  -- Adds visits to the step "START VERSION=VISITS ..." of a history that a time belongs to.
  local function add(history, step, steps, time, version, visits)
    local start = math.floor(time / step) * step
    local slot = start / step % steps
    local kept = try('HGET', history, slot) or ''
    local begun = tonumber(string.match(kept, '^%d+') or 0)
    if begun > start and begun <= now then return end -- of a later round
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

  -- What was shown since the last mark counts as of then: so a pause moves nothing.
  local mark, marked = string.match(try('HGET', process, 'marked') or '', '^([%d.]+) (%d+)$')
  for i = 5, mark and before > tonumber(marked) and #KEYS or 0 do
    local step, steps = string.match(ARGV[i + 3], '^(%d+) (%d+)$')
    add(KEYS[i], step, steps, mark, ARGV[7], before - marked)
  end
  try('HSET', process, 'marked', now .. ' ' .. before)
  try('HSET', process, 'hostname', ARGV[4], 'version', ARGV[5], 'labels', ARGV[6])
  local started = string.format('%.3f', now - string.match(full, '%S+$'))
  if not mark then try('HSET', process, 'started', started) end
  try('ZADD', names, now, ARGV[3])
  try('ZREMRANGEBYSCORE', names, '-inf', now - DAY)
  try('EXPIRE', names, DAY)
end
if last == total and fault == '' then return total end
return {ok = keeps .. fault}
