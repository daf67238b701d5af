-- Finds earlier queries that share keys with those given, and the marks on their owners.
--
-- An epoch's names carry its incarnation, so that an epoch that was cleared and began anew cannot
-- be mistaken for what it was:
--   <epoch>                a hash: i incarnation, n queries so far, f first row of records that is
--                          still there, c entries in the index, b buckets of the index
--   <epoch>:<i>:<3 bytes>  a bucket: entries of a 5-byte tag and a 4-byte query number, the newest
--                          first; linear hashing says in which bucket a tag is
--   <epoch>:<i>:row<number> a row of records in slots of 4 bytes time, 4 bytes nonce, the record
--
-- KEYS  epochs, the older first
-- ARGV  tags (K for each query, zeros where there is no key), K, owners (8 bytes each), prefix of
--       marks, bytes of a slot, slots in a row, the oldest time that counts
-- Returns two strings: matches (2 bytes query, 8 bytes shared keys, the record) and 8 bytes of mark
-- for each query.
local tags, width, owners, marked = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local slot, per, oldest = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local TAG, ENTRY, MOST, CANDIDATES, AT_ONCE = 5, 9, 8, 64, 1536
local EPOCH = 4294967296 -- query numbers are below it
local NONE, UNMARKED = string.rep('\0', TAG), string.rep('\0', 8)
local byte, char, find, sub = string.byte, string.char, string.find, string.sub
local floor = math.floor
local total = #tags / TAG

local hits = {} -- per query: identifiers, and per identifier what they share

-- Note every entry of a tag: the query's key k is one of theirs.
local function note(bucket, tag, at, offset, query, k)
  local hit = hits[query]
  if not hit then
    hit = {ids = {}, count = {}, low = {}, high = {}, last = {}}
    hits[query] = hit
  end
  local count, ids = hit.count, hit.ids
  while at do
    if at % ENTRY == 1 then
      local a, b, c, d = byte(bucket, at + TAG, at + ENTRY - 1)
      local id = offset + a + b * 256 + c * 65536 + d * 16777216
      if not count[id] and #ids < CANDIDATES then
        ids[#ids + 1] = id
        count[id], hit.low[id], hit.high[id] = 0, 0, 0
      end
      if count[id] and hit.last[id] ~= k then
        hit.last[id], count[id] = k, count[id] + 1
        if k < 32 then
          hit.low[id] = hit.low[id] + 2 ^ k
        else
          hit.high[id] = hit.high[id] + 2 ^ (k - 32)
        end
      end
    end
    at = find(bucket, tag, at + 1, true)
  end
end

local bases = {}
local function search(e, incarnation, buckets)
  local base = KEYS[e] .. ':' .. incarnation .. ':'
  bases[e] = base
  local _, exponent = math.frexp(buckets)
  local half = 2 ^ (exponent - 1)
  for start = 0, total - 1, AT_ONCE do
    local names, stop = {}, math.min(start + AT_ONCE, total) - 1
    for i = start, stop do
      local a, b, c = byte(tags, i * TAG + 1, i * TAG + 3)
      local place = (a + b * 256 + c * 65536) % (2 * half)
      if place >= buckets then place = place - half end
      local low = place % 256
      local rest = (place - low) / 256
      local middle = rest % 256
      names[i - start + 1] = base .. char(low, middle, (rest - middle) / 256)
    end
    local found = redis.call('MGET', unpack(names))
    for i = start, stop do
      local bucket = found[i - start + 1]
      if bucket then
        local tag = sub(tags, i * TAG + 1, i * TAG + TAG)
        local at = find(bucket, tag, 1, true)
        if at and tag ~= NONE then
          note(bucket, tag, at, e * EPOCH, floor(i / width), i % width)
        end
      end
    end
  end
end

for e = #KEYS, 1, -1 do
  local meta = redis.call('HMGET', KEYS[e], 'i', 'b')
  if meta[1] then search(e, meta[1], tonumber(meta[2])) end
end

local function record(id)
  local number = id % EPOCH
  local first = (number % per) * slot
  local row = bases[(id - number) / EPOCH] .. 'row' .. floor(number / per)
  local held = redis.pcall('GETRANGE', row, first, first + slot - 1)
  if type(held) == 'table' and not find(held.err, 'WRONGTYPE', 1, true) then error(held.err) end
  if type(held) ~= 'string' or #held ~= slot then return nil end
  if struct.unpack('<I4', held) < oldest then return nil end
  return sub(held, 9)
end

local matches = {}
for query = 0, total / width - 1 do
  local hit, ranked = hits[query], {}
  for j, id in ipairs(hit and hit.ids or {}) do ranked[j] = hit.count[id] * 16 * EPOCH + id end
  table.sort(ranked)
  local left = MOST
  for j = #ranked, 1, -1 do
    local id = ranked[j] % (16 * EPOCH)
    local held = left > 0 and record(id)
    if held then
      local head = struct.pack('<I2I4I4', query, hit.low[id], hit.high[id])
      matches[#matches + 1] = head .. held
      left = left - 1
    end
  end
end

local marks, names = {}, {}
for i = 1, #owners, 8 do names[#names + 1] = marked .. sub(owners, i, i + 7) end
if #names > 0 then marks = redis.call('MGET', unpack(names)) end
for i = 1, #names do
  if not marks[i] or #marks[i] ~= 8 then marks[i] = UNMARKED end
end
return {table.concat(matches), table.concat(marks)}
