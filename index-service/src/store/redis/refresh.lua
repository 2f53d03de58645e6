-- Extends entries of one scope. ARGV: the highest known tier, then the new expiry (ms) of each key.
-- The native life grows by as much as the expiry does: that needs nobody's time.
-- What is no entry (see merge.lua) is left alone.
local tier_max = tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
    local stored = redis.call('GET', key)
    if stored and #stored == 13 then
        local expires = tonumber(ARGV[i + 1])
        local stored_expires, tokens, tier = struct.unpack('<I8I4B', stored)
        if stored_expires < expires and tier <= tier_max then
            local left = math.max(redis.call('PTTL', key), 0) + expires - stored_expires
            redis.call('SET', key, struct.pack('<I8I4B', expires, tokens, tier), 'PX', left)
        end
    end
end
return #KEYS
