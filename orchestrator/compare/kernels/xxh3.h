/* XXH3 (64 bits, no seed) of pieces of more than 240 bytes, as xxhash has it. Included once for each kind of CPU. */

INLINE void FOR(add_stripe, double)(uint64_t *restrict sums, const char *restrict data, const uint8_t *restrict key) {
    uint64_t values[8], keys[8];
    memcpy(values, data, 64);
    memcpy(keys, key, 64);
    for (int i = 0; i < 8; i++) sums[i] += values[i ^ 1];
    for (int i = 0; i < 8; i++) {
        uint64_t mixed = values[i] ^ keys[i];
        sums[i] += (mixed & 0xFFFFFFFF) * (mixed >> 32);
    }
}

static uint64_t FOR(xxh3, double)(const char *data, int64_t size) {
    uint64_t sums[8] = {0xC2B2AE3DU,           0x9E3779B185EBCA87U, 0xC2B2AE3D27D4EB4FU, 0x165667B19E3779F9U,
                        0x85EBCA77C2B2AE63U, 0x85EBCA77U,           0x27D4EB2F165667C5U, 0x9E3779B1U};
    int64_t stripes = (size - 1) / 64;
    for (int64_t i = 0; i < stripes; i++) {
        FOR(add_stripe, double)(sums, data + 64 * i, secret + 8 * (i % 16));
        if (i % 16 == 15)
            for (int lane = 0; lane < 8; lane++)
                sums[lane] = (sums[lane] ^ (sums[lane] >> 47) ^ load_uint64(secret + 128 + 8 * lane)) * 0x9E3779B1U;
    }
    FOR(add_stripe, double)(sums, data + size - 64, secret + 121);
    uint64_t hash = (uint64_t)size * 0x9E3779B185EBCA87U;
    for (int i = 0; i < 8; i += 2) {
        unsigned __int128 product = (unsigned __int128)(sums[i] ^ load_uint64(secret + 11 + 8 * i)) *
                                    (sums[i + 1] ^ load_uint64(secret + 19 + 8 * i));
        hash += (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    hash = (hash ^ (hash >> 37)) * 0x165667919E3779F9U;
    return hash ^ (hash >> 32);
}
