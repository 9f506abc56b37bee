-- Applies a token once. A token stands for a batch of visits of one process.
-- KEYS  1: the counter; 2: the process's record, a hash; 3: the spare numbers, a sorted set, where
--       a member is the first number of a group, and its score the last number
-- ARGV  "SEQUENCE VISITS SHOWN KNOWN RENEW UNSHOWN": the token's sequence number; how many numbers
--       it asks for; how many the process has shown; the newest token whose reply it knows; 1 to
--       keep the record for KEPT seconds more; the ranges up to KNOWN that nobody was shown
-- A range is " LAST COUNT": COUNT consecutive numbers that end at LAST. The record keeps the newest
-- token as "SEQUENCE RANGES". The reply is this text; or LAST alone, if no number was spare.

local KEPT, MOST = 90000, 128 -- a day and an hour; a token reads MOST + 1 groups at most
local EXACT = 1e14 -- Lua writes larger numbers inexactly, so they are never spare
local format = '^(%d+) (%d+) (%d+) (%d+) (%d)(.*)$'
local sequence, visits, shown, known, renew, unshown = ARGV[1]:match(format)
-- If Redis applied this token or a newer one before, the script changes no number.
local newest, got = (redis.call('HGET', KEYS[2], 'token') or ''):match('^(%d+)(.*)$')
if newest and tonumber(sequence) <= tonumber(newest) then
  redis.call('EXPIRE', KEYS[2], KEPT) -- this is a write, and a WAIT after it needs a write
  return {ok = newest .. got}
end
-- A newest token above KNOWN has made UNSHOWN spare. The process showed none of its numbers.
if newest ~= known then unshown = newest and tonumber(newest) > tonumber(known) and got or '' end
local left, ranges, dropped, total = tonumber(visits), '', ''
local are_spare = redis.call('ZRANGE', KEYS[3], 0, 0)[1] or unshown ~= ''
if are_spare or not newest or renew == '1' then
  total = redis.call('INCRBY', KEYS[1], 0) -- INCRBY must fail before a spare number moves, or never
  redis.call('HSET', KEYS[2], 'visits', shown) -- HSET must fail here, too, or never
  redis.call('EXPIRE', KEYS[2], KEPT)
end
if are_spare and math.abs(total) < EXACT then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '(' .. total, '+inf') -- the counter will reach these
  redis.call('ZADD', KEYS[3], 'XX', 0, '') -- no change; ZADD must fail here, or never
  for last, count in unshown:gmatch(' (%-?%d+) (%d+)') do
    if count ~= '0' and tonumber(last) <= total and math.abs(last) < EXACT then
      local below = redis.call('ZRANGEBYSCORE', KEYS[3], last - count, last - count)[1]
      local above = redis.call('ZSCORE', KEYS[3], last + 1)
      redis.call('ZREM', KEYS[3], last + 1)
      redis.call('ZADD', KEYS[3], above or last, below or last - count + 1)
    end
  end
  local groups = redis.call('ZRANGE', KEYS[3], 0, math.min(left, MOST), 'WITHSCORES')
  for i = 1, #groups, 2 do
    if left == 0 then break end
    local first, last = (groups[i] .. ' ' .. groups[i + 1]):match('^(%-?%d+) (%-?%d+)$')
    local count = first and math.min(left, last - first + 1) or 0
    redis.call('ZREM', KEYS[3], groups[i])
    if count > 0 then
      if first + count <= tonumber(last) then redis.call('ZADD', KEYS[3], last, first + count) end
      ranges, left = ranges .. ' ' .. first + count - 1 .. ' ' .. count, left - count
    else dropped = ' dropped' end -- the script cannot read this group
  end
end
if left > 0 or ranges == '' then
  total = redis.call('INCRBY', KEYS[1], left)
  local last = math.abs(total) < EXACT and total or redis.call('GET', KEYS[1])
  ranges = ranges .. ' ' .. last .. ' ' .. left
end
local put = redis.pcall('HSET', KEYS[2], 'token', sequence .. ranges, 'visits', shown + visits)
if type(put) == 'table' then redis.call('INCRBY', KEYS[1], 0 - left) return put end -- HSET failed
if left == tonumber(visits) and dropped == '' and math.abs(total) < EXACT then return total end
return {ok = sequence .. ranges .. dropped}
