-- Applies one numbered batch of increments, once. See flush/mod.rs for the arguments.
local number = tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local status, last, exceptions, owner = 'applied', ARGV[2], '', ARGV[1]
local marker = redis.call('GET', KEYS[1])
if marker then
  local epoch, seen, rest = string.match(marker, '^(%d+) (%d+)(.*)$')
  exceptions = rest
  if ARGV[3] == 'claim' or ARGV[3] == 'takeover' then
    status, last = 'taken', seen
    owner = string.format('%.0f', math.max(tonumber(epoch) + 1, tonumber(ARGV[1])))
  elseif tonumber(epoch) > tonumber(ARGV[1]) then
    status, last = 'fenced', seen
  elseif tonumber(seen) >= number then
    status, last = 'done', seen
  elseif tonumber(seen) < number - 1 and ARGV[3] ~= 'resync' then
    status, last = 'gap', seen
  end
elseif ARGV[3] == 'claim' then
  status = 'taken'
elseif ARGV[3] == 'again' or ARGV[3] == 'takeover' then
  status, last = 'missing', '0'
end

-- Decimal strings, because Lua's numbers are exact only up to 2^53.
local function less(a, b)
  local minus_a, minus_b = string.sub(a, 1, 1) == '-', string.sub(b, 1, 1) == '-'
  if minus_a ~= minus_b then return minus_a end
  if #a ~= #b then return (#a < #b) ~= minus_a end
  return a ~= b and (a < b) ~= minus_a
end

local function write_marker()
  redis.call('SET', KEYS[1], owner .. ' ' .. last .. exceptions, 'PX', ARGV[4])
end

-- Returns what was out of the ordinary, if anything, and the value, if it is known.
local function add(key, delta)
  local value = redis.pcall('INCRBY', key, delta)
  if type(value) == 'number' then return nil, value end
  if string.find(value.err, 'WRONGTYPE', 1, true) then return 'w' end
  if string.find(value.err, 'overflow', 1, true) then return 'o' end
  return 'n'
end

-- The same for a key of which more is said than its delta. Where its deadline is asked for the
-- value is not known either, so that all is read.
local function apply(key, delta, deadline, last_value, flag)
  local due = flag == 'd' or flag == 'b'
  local past = deadline ~= '-' and tonumber(deadline) <= now
  if past and due then
    redis.pcall('PEXPIREAT', key, deadline)
    return 'x'
  end
  if past then
    local current = redis.pcall('GET', key)
    local counter = type(current) == 'string' and string.find(current, '^%-?%d+$')
    if not counter or less(current, last_value) then return 'x' end
  end
  local kind, value
  if delta ~= '0' then
    -- A key that is gone is made with its deadline. (To ask first whether it is there would be a
    -- read, see below.) The relative time keeps a key of a script cut short from living on; the
    -- absolute one is exact.
    if deadline ~= '-' and not past and not due then
      local left = string.format('%.0f', tonumber(deadline) - now)
      if redis.call('SET', key, '0', 'PX', left, 'NX') then
        redis.call('PEXPIREAT', key, deadline)
      end
    end
    kind, value = add(key, delta)
    if kind then return kind end
  end
  if past then return 'a' end
  if due then
    redis.call('PEXPIREAT', key, deadline)
  end
  if flag == 'n' or flag == 'd' then return nil, value end
end

-- Values that need not be read: Lua's numbers are exact below 2^53, and 2^53 may be one more.
local values, known, exact = {}, 0, 2 ^ 53

if status == 'applied' then
  exceptions = string.gsub(exceptions, ' (%d+)%.%d+%.%a', function(of)
    if tonumber(of) + 8 <= number then return '' end
  end)
  -- First, so that a server that refuses writes refuses the batch whole.
  write_marker()
  local before, nine = exceptions, string.byte('9')
  for i = 2, #KEYS do
    local argument, kind, value = ARGV[i + 3], nil, nil
    if string.byte(argument, -1) <= nine then
      kind, value = add(KEYS[i], argument)
    else
      kind, value = apply(KEYS[i], string.match(argument, '^(%S+) (%S+) (%S+) (%a)$'))
    end
    if kind then
      exceptions = exceptions .. ' ' .. ARGV[2] .. '.' .. (i - 2) .. '.' .. kind
    elseif value and value < exact and value > -exact then
      values[i - 1], known = value, known + 1
    end
  end
  if exceptions ~= before then write_marker() end
end

now = string.format('%.0f', now)
if status == 'taken' then
  write_marker()
  return { status, last, now, exceptions, owner }
end

-- Last, so that the server tells of the next change by others. At each command that reads, it
-- remembers every key of the script (since Redis 7.2 the command's): one for all values, and one
-- more for a deadline only if asked.
local deadlines = ''
if known < #KEYS - 1 then
  values = redis.call('MGET', unpack(KEYS, 2))
  for i = 2, #KEYS do
    if string.find(ARGV[i + 3], '[ab]$') then
      local ttl = redis.call('PTTL', KEYS[i])
      if ttl >= 0 then ttl = tonumber(now) + ttl end
      deadlines = deadlines .. string.format(' %d.%.0f', i - 2, ttl)
    end
  end
elseif known > 0 then
  redis.call('EXISTS', unpack(KEYS, 2))
end
local answer = { status, last, now, exceptions, deadlines }
for i = 1, #KEYS - 1 do
  answer[i + 5] = values[i]
end
return answer
