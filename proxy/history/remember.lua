-- Remembers queries; `lookup.lua` describes the layout.
--
-- KEYS  the epoch, how many queries each owner has asked to remember this minute (a hash), and an
--       epoch that is over
-- ARGV  queries (8 bytes owner, K tags, time and nonce and record), K, bytes from time to record,
--       shards, seconds to keep records and to keep the epoch, most queries of an owner a minute,
--       most rows, an incarnation for a new epoch
-- Returns 4 bytes for each query: its number, or all ones where its owner has had enough.
local epoch, counts, over = KEYS[1], KEYS[2], KEYS[3]
local queries, width, slot = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local shards, record_s, epoch_s = tonumber(ARGV[4]), ARGV[5], ARGV[6]
local most, rows = tonumber(ARGV[7]), tonumber(ARGV[8])
local TAG, IN_ROW = 5, 256
local FILL = 160 -- bytes in a bucket on average: fewer cost memory for names, more cost time
local NEWEST = 8 -- queries in an entry: a lookup returns no more than this
local LONGEST = 8 * FILL -- chance alone does not get a bucket there
local PRUNED = 64 -- once in so many queries, what points to expired records is dropped on the way
local FIRST_BUCKETS, LAST_BUCKET = 64, 8388608 -- shards and 3 bytes of a tag say where it is
local ONE_IN = 16 -- what is kept of an owner who has had enough
local NONE, REFUSED = string.rep('\0', TAG), string.rep('\255', 4)
local byte, char, find, sub = string.byte, string.char, string.find, string.sub
local floor = math.floor

local meta = redis.call('HMGET', epoch, 'i', 'n', 'f', 'c', 'b')
local incarnation, n, first = meta[1] or ARGV[9], tonumber(meta[2] or 0), tonumber(meta[3] or 0)
local bytes, buckets = tonumber(meta[4] or 0), tonumber(meta[5] or FIRST_BUCKETS)
local base = epoch .. ':' .. incarnation .. ':'
local _, exponent = math.frexp(buckets)
local half = 2 ^ (exponent - 1)

local function place(tag)
  local a, b, c = byte(tag, 1, 3)
  local at = (a + b * 256 + c * 65536) % (2 * half)
  return at < buckets and at or at - half
end

local function packed(number)
  return struct.pack('<I4', number)
end

local function field_of(at)
  return sub(packed(at), 1, 3)
end

local function write(at, bucket)
  if bucket == '' then
    redis.call('HDEL', base .. at % shards, field_of(at))
  else
    redis.call('HSET', base .. at % shards, field_of(at), bucket)
    redis.call('EXPIRE', base .. at % shards, epoch_s)
  end
end

local function row_of(number)
  return base .. 'row' .. sub(packed(number), 2, 4)
end

-- The bucket with a number put first: the tag's entry goes to the front, with its newest numbers.
local function insert(bucket, tag, number)
  local at, numbers = find(bucket, tag, 1, true), ''
  if at then
    local past = at + TAG + 4 * (byte(bucket, at + TAG) or 0)
    numbers = sub(bucket, at + TAG + 1, past)
    if sub(numbers, 1, 4) == number then return bucket end -- a key twice in a row
    bucket = sub(bucket, 1, at - 1) .. sub(bucket, past + 1)
    numbers = sub(numbers, 1, 4 * (NEWEST - 1))
  end
  return tag .. char(#numbers / 4 + 1) .. number .. numbers .. bucket
end

-- The entries of a bucket, without those of whose queries no record is left.
local function living(bucket)
  local entries, at = {}, 1
  while at + TAG < #bucket do
    local past = at + TAG + 4 * byte(bucket, at + TAG)
    local a, b, c, d = byte(bucket, at + TAG + 1, at + TAG + 4)
    if past > #bucket or not d then break end
    if a + b * 256 + c * 65536 + d * 16777216 >= first * IN_ROW then
      entries[#entries + 1] = sub(bucket, at, past)
    end
    at = past + 1
  end
  return entries
end

local numbers, records, entries, known = {}, {}, {}, n
local length = 8 + width * TAG + slot
for i = 1, #queries, length do
  local asked = redis.call('HINCRBY', counts, sub(queries, i, i + 7), 1)
  if asked > most and asked % ONE_IN ~= 0 then
    numbers[#numbers + 1] = REFUSED
  else
    local number, row = packed(n), row_of(n)
    records[row] = records[row] or {}
    table.insert(records[row], sub(number, 1, 1))
    table.insert(records[row], sub(queries, i + length - slot, i + length - 1))
    for at = i + 8, i + length - slot - 1, TAG do
      local tag = sub(queries, at, at + TAG - 1)
      if tag ~= NONE then entries[#entries + 1] = {tag, number, place(tag)} end
    end
    numbers[#numbers + 1] = number
    n = n + 1
  end
end
redis.call('EXPIRE', counts, 120)
for row, data in pairs(records) do
  redis.call('HSET', row, unpack(data))
  redis.call('EXPIRE', row, record_s)
end

-- What is in the same shard is read and written together.
local held, written = {}, {}
for _, entry in ipairs(entries) do
  local to = entry[3]
  if not held[to] then
    held[to] = ''
    local group = written[to % shards] or {places = {}, fields = {}}
    group.places[#group.places + 1], group.fields[#group.fields + 1] = to, field_of(to)
    written[to % shards] = group
  end
end
for shard, group in pairs(written) do
  for i, bucket in ipairs(redis.call('HMGET', base .. shard, unpack(group.fields))) do
    held[group.places[i]] = bucket or ''
    bytes = bytes - #(bucket or '')
  end
end
for _, entry in ipairs(entries) do
  held[entry[3]] = insert(held[entry[3]], entry[1], entry[2])
end
local prune = first > 0 and floor(known / PRUNED) < floor(n / PRUNED)
for shard, group in pairs(written) do
  local data = {}
  for i, to in ipairs(group.places) do
    local bucket = held[to]
    if prune or #bucket > LONGEST then
      bucket = sub(table.concat(living(bucket)), 1, LONGEST)
    end
    bytes = bytes + #bucket
    data[2 * i - 1], data[2 * i] = group.fields[i], bucket
  end
  if redis.call('HSET', base .. shard, unpack(data)) > 0 then -- it may be a new shard
    redis.call('EXPIRE', base .. shard, epoch_s)
  end
end

-- Linear hashing: one bucket after the other is split in two as the index grows.
while bytes > buckets * FILL and buckets < LAST_BUCKET do
  local from, to = buckets - half, buckets
  local bucket, stay, go = redis.call('HGET', base .. from % shards, field_of(from)), {}, {}
  buckets = buckets + 1
  for _, entry in ipairs(living(bucket or '')) do
    local side = place(entry) == from and stay or go
    side[#side + 1] = entry
  end
  if #go > 0 then
    write(to, table.concat(go))
    write(from, table.concat(stay))
  end
  if buckets == 2 * half then half = buckets end
end

-- Rows expire from the first on.
local last = floor(math.max(n - 1, 0) / IN_ROW)
while first < last and last - first >= rows do
  redis.call('UNLINK', row_of(first * IN_ROW))
  first = first + 1
end
while first < last and redis.call('EXISTS', row_of(first * IN_ROW)) == 0 do first = first + 1 end
redis.call('HSET', epoch, 'i', incarnation, 'n', n, 'f', first, 'c', bytes, 'b', buckets)
redis.call('EXPIRE', epoch, epoch_s)

-- Large hashes are better unlinked, in a thread of the server's, than left to expire.
local gone = redis.call('HGET', over, 'i')
if gone then
  for shard = 0, shards - 1 do redis.call('UNLINK', over .. ':' .. gone .. ':' .. shard) end
  redis.call('UNLINK', over)
end
return table.concat(numbers)
