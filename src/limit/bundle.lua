-- One call on each key, as the call's own script would make it. For each of them: the new value, or
-- that and the time to live; 'd' where it is denied; the error of what came after the increment; or
-- false where nothing was written and the call has to run as its own script.
local amount, limit = ARGV[1], tonumber(ARGV[2])
local expiry, rule, tells = ARGV[3], ARGV[4], ARGV[5] == '1'
local first, always = tonumber(amount), rule == 'always' or rule == 'restart-always'
local restarts = rule == 'restart' or rule == 'restart-always'
local asks = tells or restarts or rule == 'missing' or rule == 'due'
-- Before any write: behind one the server would not ask any more whether there is memory.
local values = limit and redis.call('MGET', unpack(KEYS))

-- Returns the new value, or nil where nothing was written, whether it was set anew, and an error.
local function add(key, ttl)
  if restarts and ttl <= 0 then
    local set = redis.pcall('SET', key, amount, 'PX', expiry)
    if set.err then return nil end
    return first, true
  end
  local value = redis.pcall('INCRBY', key, amount)
  if type(value) == 'table' then return nil end
  local sets = always or (rule == 'first' and value == first)
    or (rule == 'missing' and ttl < 0) or (rule == 'due' and ttl <= 0)
  local set = sets and redis.pcall('PEXPIRE', key, expiry)
  return value, sets, type(set) == 'table' and set
end

local results = {}
for i = 1, #KEYS do
  local key, result = KEYS[i], nil
  if limit then
    local value = values[i]
    local number = value and tonumber(value) or not value and 0
    -- What MGET gives nothing for may hold something else than a string.
    if not number or (not value and limit <= 0) then
      result = false
    elseif number >= limit then
      result = 'd'
    end
  end
  if result == nil then
    local ttl = asks and redis.call('PTTL', key)
    local value, sets, failed = add(key, ttl)
    if sets then ttl = tonumber(expiry) end
    result = failed or (tells and value and { value, ttl }) or value or false
  end
  results[i] = result
end
return results
