-- Replaces records of remembered queries; `lookup.lua` describes the layout.
--
-- KEYS  epochs
-- ARGV  rows (1 byte which epoch, 4 bytes the query's number, a slot), bytes of a slot, slots in a
--       row of records
-- A record is replaced only where the slot still holds its time and nonce: that query and no other.
local rows, slot, per = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local bases = {}
for e = 1, #KEYS do
  local incarnation = redis.call('HGET', KEYS[e], 'i')
  if incarnation then bases[e] = KEYS[e] .. ':' .. incarnation .. ':row' end
end
for i = 1, #rows, 5 + slot do
  local e, number = struct.unpack('<I1I4', rows, i)
  if bases[e] then
    local row, first = bases[e] .. math.floor(number / per), (number % per) * slot
    local head = redis.pcall('GETRANGE', row, first, first + 7)
    if head == string.sub(rows, i + 5, i + 12) then
      redis.call('SETRANGE', row, first, string.sub(rows, i + 5, i + 4 + slot))
    end
  end
end
return redis.status_reply('OK')
