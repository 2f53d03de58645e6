-- store::merge on entries of one scope.
-- ARGV: the highest known tier, now (ms), what an entry outlives its expiry by (ms), then the new
-- value of each key.
-- A value is expiry (8 bytes), tokens (4), tier (1), little endian; any other form is no entry.
local tier_max, now, grace = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for i, key in ipairs(KEYS) do
    local value = ARGV[i + 3]
    local expires, tokens, tier = struct.unpack('<I8I4B', value)
    local stored = redis.call('GET', key)
    if stored and #stored == 13 then
        local stored_expires, stored_tokens, stored_tier = struct.unpack('<I8I4B', stored)
        if now < stored_expires and stored_tier <= tier_max then
            expires = math.max(expires, stored_expires)
            value = struct.pack('<I8I4B', expires, stored_tokens, math.max(tier, stored_tier))
        end
    end
    if value ~= stored then
        redis.call('SET', key, value, 'PX', math.max(expires - now, 0) + grace)
    end
end
return #KEYS
