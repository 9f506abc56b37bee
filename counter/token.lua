-- Applies a token once: a group of visits, known by its process and its sequence number.
--
-- KEYS  the counter; what this process keeps; the spare numbers
-- ARGV  "SEQUENCE VISITS SHOWN", where SHOWN is how many visits the process has shown so far; now
--       and then, "KNOWN UNSHOWN", where KNOWN is the newest token whose numbers the process
--       knows, by default the one before, and UNSHOWN how many of its last numbers nobody was shown
--
-- A token gets consecutive numbers, fewer than its visits where spare ones are left. The reply is
-- the last number where all is as usual, else "SEQUENCE LAST COUNT" of the token that Redis keeps,
-- and what went wrong beside.

local counter, process, spares = KEYS[1], KEYS[2], KEYS[3]
local DAY, EXACT = 86400, 1e14 -- seconds; Lua writes larger numbers inexactly
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
if last == total and fault == '' then return total end
return {ok = keeps .. fault}
