-- Finds earlier queries that share keys with those given, and the marks on their owners.
--
-- An epoch's names carry its incarnation, so that an epoch that was cleared and began anew cannot
-- be mistaken for what it was:
--   <epoch>              a hash: i incarnation, n queries so far, f first row of records that is
--                        still there, c bytes of the index, b buckets of the index
--   <epoch>:<i>:<shard>  hashes with the index: a field of 3 bytes for each bucket, in it entries
--                        of a 5-byte tag, how many queries have it (1 byte) and their numbers (4
--                        bytes each), the newest first. Linear hashing says in which bucket a tag
--                        is; a bucket's lowest bits say in which shard. Fields cost less memory
--                        and time than as many keys that expire.
--   <epoch>:<i>:row<row> hashes with 256 records each, in the order of the queries' numbers: a row
--                        is 3 bytes of a number and a field the lowest. Before a record there are
--                        4 bytes time and 4 bytes nonce.
--
-- KEYS  epochs, the older first
-- ARGV  tags in the order of their shards (zeros where there is no key), how many are in each shard
--       (2 bytes), which key of all each of them is (2 bytes), K, owners (8 bytes each), prefix of
--       marks, bytes of a field with a record, the oldest time that counts
-- Returns two strings: matches (2 bytes query, 8 bytes shared keys, the record) and 8 bytes of mark
-- for each query.
local tags, sizes, order, width = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local owners, marked, slot, oldest = ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local TAG, MOST = 5, 8
local EPOCH = 2 ^ 32 -- query numbers are below it
local RANK = 16 * EPOCH -- and epochs below 16
local NONE, UNMARKED = string.rep('\0', TAG), string.rep('\0', 8)
local byte, char, find, sub = string.byte, string.char, string.find, string.sub
local floor = math.floor
local shards = #sizes / 2

-- Per query: what is shared, as SHARE and a bit for each key, with the queries of an entry; those
-- of different keys are often the same.
local hits = {}
local SHARE = 2 ^ 40

local function note(bucket, at, e, i)
  local low, high = byte(order, 2 * i + 1, 2 * i + 2)
  local key = low + 256 * high
  local query, k = floor(key / width), key % width
  local hit = hits[query]
  if not hit then
    hit = {}
    for half = 1, 2 * #KEYS do hit[half] = {} end -- 32 keys each, for each epoch
    hits[query] = hit
  end
  local shares, more = hit[2 * e - 1], SHARE + 2 ^ k
  if k >= 32 then shares, more = hit[2 * e], SHARE + 2 ^ (k - 32) end
  local numbers = sub(bucket, at + TAG + 1, at + TAG + 4 * (byte(bucket, at + TAG) or 0))
  shares[numbers] = (shares[numbers] or 0) + more
end

local bases = {}
local function search(e, incarnation, buckets)
  local base = KEYS[e] .. ':' .. incarnation .. ':'
  bases[e] = base
  local _, exponent = math.frexp(buckets)
  local half, names, first = 2 ^ (exponent - 1), {}, 0
  local whole = 2 * half
  for shard = 0, shards - 1 do
    local low, high = byte(sizes, 2 * shard + 1, 2 * shard + 2)
    local count = low + 256 * high
    for i = 1, count do
      local at = (first + i - 1) * TAG
      local a, b, c = byte(tags, at + 1, at + 3)
      local place = (a + b * 256 + c * 65536) % whole
      if place >= buckets then place = place - half end
      local rest = (place - place % 256) / 256
      local middle = rest % 256
      names[i] = char(place % 256, middle, (rest - middle) / 256)
    end
    local found = count > 0 and redis.call('HMGET', base .. shard, unpack(names, 1, count))
    for i = 1, count do
      local bucket = found[i]
      if bucket then
        local at = (first + i - 1) * TAG
        local tag = sub(tags, at + 1, at + TAG)
        -- That it is found where no entry begins is as unlikely as that two keys have one tag.
        local here = find(bucket, tag, 1, true)
        if here and tag ~= NONE then note(bucket, here, e, first + i - 1) end
      end
    end
    first = first + count
  end
end

for e = 1, #KEYS do
  local meta = redis.call('HMGET', KEYS[e], 'i', 'b')
  if meta[1] then search(e, meta[1], tonumber(meta[2])) end
end

local function each(entries)
  local shares = {}
  for numbers, share in pairs(entries) do
    for at = 1, #numbers - 3, 4 do
      local number = sub(numbers, at, at + 3)
      shares[number] = (shares[number] or 0) + share
    end
  end
  return shares
end

-- What a query shares with earlier ones: ranks, the more shared and then the newer the higher, and
-- for each rank the low and high 32 keys shared and the number.
local function ranked(hit)
  local ranks, low, high, numbers = {}, {}, {}, {}
  for e = 1, #KEYS do
    local shares, others = each(hit[2 * e - 1]), each(hit[2 * e])
    for number in pairs(others) do shares[number] = shares[number] or 0 end
    for number, share in pairs(shares) do
      local other = others[number] or 0
      local bits, more = share % SHARE, other % SHARE
      local a, b, c, d = byte(number, 1, 4)
      local rank = (share - bits + other - more) / SHARE * RANK
        + e * EPOCH + a + b * 256 + c * 65536 + d * 16777216
      ranks[#ranks + 1] = rank
      low[rank], high[rank], numbers[rank] = bits, more, number
    end
  end
  table.sort(ranks)
  return ranks, low, high, numbers
end

local function epoch_of(rank)
  local rest = rank % RANK
  return (rest - rest % EPOCH) / EPOCH
end

local records, wanted = {}, {} -- for each epoch: records by number, fields by row
for e = 1, #KEYS do records[e], wanted[e] = {}, {} end

local function want(e, number)
  if records[e][number] == nil then
    local row = sub(number, 2, 4)
    local fields = wanted[e][row] or {}
    fields[#fields + 1] = sub(number, 1, 1)
    wanted[e][row], records[e][number] = fields, false
  end
end

-- Fetch what is wanted; false stays where there is no record any more, or one too old.
local function fetch()
  for e = 1, #KEYS do
    for row, fields in pairs(wanted[e]) do
      local held = redis.call('HMGET', bases[e] .. 'row' .. row, unpack(fields))
      for i, field in ipairs(fields) do
        local one = held[i]
        if one and #one == slot and struct.unpack('<I4', one) >= oldest then
          records[e][field .. row] = sub(one, 9)
        end
      end
    end
    wanted[e] = {}
  end
end

local queries, found, matches = #owners / 8, {}, {}
for query, hit in pairs(hits) do
  local ranks, low, high, numbers = ranked(hit)
  found[query] = {ranks, low, high, numbers}
  for j = #ranks, math.max(1, #ranks - MOST + 1), -1 do
    want(epoch_of(ranks[j]), numbers[ranks[j]])
  end
end
fetch()
for query = 0, queries - 1 do
  local ranks, low, high, numbers = unpack(found[query] or {{}})
  local left = MOST
  for j = #ranks, 1, -1 do
    local rank = ranks[j]
    local e, number = epoch_of(rank), numbers[rank]
    if left > 0 and records[e][number] == nil then -- in the place of one that is gone
      want(e, number)
      fetch()
    end
    if left > 0 and records[e][number] then
      matches[#matches + 1] = struct.pack('<I2I4I4', query, low[rank], high[rank])
      matches[#matches + 1] = records[e][number]
      left = left - 1
    end
  end
end

local names = {}
for i = 1, queries do names[i] = marked .. sub(owners, 8 * i - 7, 8 * i) end
local marks = redis.call('MGET', unpack(names))
for i = 1, queries do
  if not marks[i] or #marks[i] ~= 8 then marks[i] = UNMARKED end
end
return {table.concat(matches), table.concat(marks)}
