-- store::merge on entries of one scope.
-- ARGV: now (ms), what an entry outlives its expiry by (ms), then the new value of each key.
-- A value is expiry (8 bytes), tokens (4), tier (1), little endian.
local now, grace = tonumber(ARGV[1]), tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
    local value = ARGV[i + 2]
    local expires, tokens, tier = struct.unpack('<I8I4B', value)
    local stored = redis.call('GET', key)
    if stored then
        local stored_expires, stored_tokens, stored_tier = struct.unpack('<I8I4B', stored)
        if now < stored_expires then
            expires = math.max(expires, stored_expires)
            value = struct.pack('<I8I4B', expires, stored_tokens, math.max(tier, stored_tier))
        end
    end
    if value ~= stored then
        redis.call('SET', key, value, 'PX', math.max(expires - now, 0) + grace)
    end
end
return #KEYS
