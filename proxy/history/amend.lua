-- Replaces records of remembered queries; `lookup.lua` describes the layout.
--
-- KEYS  epochs
-- ARGV  rows (1 byte which epoch, 4 bytes the query's number, time and nonce and record), bytes
--       from time to record
-- A record is replaced only where its time and nonce are still there: that query's and no other's.
local rows, slot = ARGV[1], tonumber(ARGV[2])
local bases = {}
for e = 1, #KEYS do
  local incarnation = redis.call('HGET', KEYS[e], 'i')
  if incarnation then bases[e] = KEYS[e] .. ':' .. incarnation .. ':row' end
end
for i = 1, #rows, 5 + slot do
  local base = bases[string.byte(rows, i)]
  if base then
    local row, field = base .. string.sub(rows, i + 2, i + 4), string.sub(rows, i + 1, i + 1)
    local held = redis.call('HGET', row, field)
    if held and string.sub(held, 1, 8) == string.sub(rows, i + 5, i + 12) then
      redis.call('HSET', row, field, string.sub(rows, i + 5, i + 4 + slot))
    end
  end
end
return redis.status_reply('OK')
