local key = KEYS[1]
local calls, amount, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local expiry, rule = ARGV[4], ARGV[5]
local exact = 4503599627370496
local ttl = redis.call('PTTL', key)
local restart = ttl <= 0 and (rule == 'restart' or rule == 'restart-always')
local before = '0'
if not restart then
  before = redis.call('GET', key) or '0'
  local number = tonumber(before)
  if not number or before == '-0' or string.format('%.0f', number) ~= before
    or number <= -exact or number >= exact then
    return false
  end
end
local from = tonumber(before)
local counted = calls
if limit then
  counted = math.max(0, math.min(calls, limit - from))
end
if counted > 0 then
  local sets = restart or rule == 'always' or rule == 'restart-always'
    or (rule == 'missing' and ttl < 0) or (rule == 'due' and ttl <= 0)
  if rule == 'first' then
    local earlier = -from / amount
    sets = earlier >= 0 and earlier < counted and earlier == math.floor(earlier)
  end
  if sets then
    redis.call('SET', key, string.format('%.0f', from + counted * amount), 'PX', expiry)
    ttl = tonumber(expiry)
  else
    redis.call('INCRBY', key, string.format('%.0f', counted * amount))
  end
end
return {before, counted, ttl, redis.pcall('PTTL', key)}
