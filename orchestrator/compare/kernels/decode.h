/* Stored elements as float32 or float64; codes as in labeling/shard/element_codes.py. Once for each kind of CPU. */

static void FOR(decode_float16, float)(const char *restrict data, int64_t size, float *restrict out) {
    int64_t i = 0;
#if VECTOR_BYTES >= 32
    for (; i + 8 <= size; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(data + 2 * i))));
#endif
    for (; i < size; i++) {
        uint32_t half = load_uint16(data + 2 * i), magnitude = (half & 0x7FFF) << 13, bits;
        float value;
        memcpy(&value, &magnitude, 4);
        value *= 0x1p112f; /* the difference of the exponents' biases; exact, also for float16's subnormals */
        memcpy(&bits, &value, 4);
        if (magnitude >= 0x0F800000) bits = magnitude | 0x7F800000; /* infinity and NaN */
        bits |= (half & 0x8000) << 16;
        memcpy(out + i, &bits, 4);
    }
}

static void FOR(decode_bfloat16, float)(const char *restrict data, int64_t size, float *restrict out) {
    typedef uint32_t Wide __attribute__((vector_size(VECTOR_BYTES)));
    typedef uint16_t Narrow __attribute__((vector_size(VECTOR_BYTES / 2)));
    enum { COUNT = VECTOR_BYTES / 4 };
    int64_t i = 0;
    for (; i + COUNT <= size; i += COUNT) {
        Narrow halves;
        memcpy(&halves, data + 2 * i, sizeof halves);
        Wide bits = __builtin_convertvector(halves, Wide) << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
    for (; i < size; i++) {
        uint32_t bits = (uint32_t)load_uint16(data + 2 * i) << 16;
        memcpy(out + i, &bits, 4);
    }
}

static void FOR(decode, float)(
    const Operand *operand, const char *restrict data, int64_t size, float *restrict out, int64_t *restrict exact
) {
    (void)exact; /* no integers are decoded to float32 */
    switch (operand->code) {
    case FLOAT32: memcpy(out, data, (size_t)size * 4); break;
    case FLOAT16: FOR(decode_float16, float)(data, size, out); break;
    case BFLOAT16: FOR(decode_bfloat16, float)(data, size, out); break;
    default:
        for (int64_t i = 0; i < size; i++) out[i] = operand->float8_values[(uint8_t)data[i]];
    }
}

#define DECODE_INTEGERS(TYPE)                                                                                          \
    for (int64_t i = 0; i < size; i++) {                                                                               \
        TYPE value;                                                                                                    \
        memcpy(&value, data + i * (int64_t)sizeof value, sizeof value);                                                \
        exact[i] = (int64_t)value;                                                                                     \
        out[i] = (double)value;                                                                                        \
    }                                                                                                                  \
    break

/* Integers, for uint64 their bits, are also written to `exact`. */
static void FOR(decode, double)(
    const Operand *operand, const char *restrict data, int64_t size, double *restrict out, int64_t *restrict exact
) {
    float narrow[BLOCK];
    switch (operand->code) {
    case FLOAT64: memcpy(out, data, (size_t)size * 8); break;
    case INT8: DECODE_INTEGERS(int8_t);
    case INT16: DECODE_INTEGERS(int16_t);
    case INT32: DECODE_INTEGERS(int32_t);
    case INT64: DECODE_INTEGERS(int64_t);
    case UINT8: DECODE_INTEGERS(uint8_t);
    case UINT16: DECODE_INTEGERS(uint16_t);
    case UINT32: DECODE_INTEGERS(uint32_t);
    case UINT64: DECODE_INTEGERS(uint64_t);
    default:
        FOR(decode, float)(operand, data, size, narrow, NULL);
        for (int64_t i = 0; i < size; i++) out[i] = narrow[i];
    }
}
