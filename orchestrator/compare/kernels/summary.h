/* The moments, digests and random projections of a tensor, as labeling/shard/tensor_summary.py, row_summaries.py and
   digest.py define them. Included once for each kind of CPU. */

#define VALUES FOR(Reals, double)
#define SIGNS FOR(Unsigned, double)
#define PER_STEP (VECTOR_BYTES / 8)

/* Add up in float64 the values, or their squares. */
#define SUM_OF(TERM)                                                                                                   \
    VALUES sums[4] = {{0}}, v;                                                                                         \
    double sum = 0;                                                                                                    \
    int64_t i = 0;                                                                                                     \
    for (; i + 4 * PER_STEP <= size; i += 4 * PER_STEP)                                                                \
        for (int part = 0; part < 4; part++) {                                                                         \
            memcpy(&v, values + i + part * PER_STEP, sizeof v);                                                        \
            sums[part] += TERM(v);                                                                                     \
        }                                                                                                              \
    sums[0] = (sums[0] + sums[1]) + (sums[2] + sums[3]);                                                               \
    for (int lane = 0; lane < PER_STEP; lane++) sum += sums[0][lane];                                                  \
    for (; i < size; i++) sum += TERM(values[i]);                                                                      \
    return sum
#define ITSELF(V) (V)
#define SQUARE(V) ((V) * (V))

static double FOR(sum_of, double)(const double *values, int64_t size) { SUM_OF(ITSELF); }
static double FOR(squares_of, double)(const double *values, int64_t size) { SUM_OF(SQUARE); }

/* Widen the range by a block's; tell whether all its values are finite and above the lowest. */
static bool FOR(take_range, double)(const double *values, int64_t size, double lowest, double *low, double *high) {
    VALUES least = INFINITY - (VALUES){0}, most = -least, odd = {0}, v;
    int64_t i = 0;
    for (; i + PER_STEP <= size; i += PER_STEP) {
        memcpy(&v, values + i, sizeof v);
        least = FOR(min, double)(v, least);
        most = FOR(max, double)(v, most);
        odd += v - v; /* NaN where v is not finite */
    }
    double low_here = INFINITY, high_here = -INFINITY, any = 0;
    for (int lane = 0; lane < PER_STEP; lane++) {
        low_here = LESSER(low_here, least[lane]);
        high_here = GREATER(high_here, most[lane]);
        any += odd[lane];
    }
    for (; i < size; i++) {
        low_here = LESSER(low_here, values[i]);
        high_here = GREATER(high_here, values[i]);
        any += values[i] - values[i];
    }
    if (any != 0 || low_here <= lowest) return false;
    *low = LESSER(*low, low_here);
    *high = GREATER(*high, high_here);
    return true;
}

/* Turn the signs of a line. Bit i of the words is set where element i is turned. */
static void FOR(turn_signs, double)(double *values, const uint64_t *words) {
    SIGNS up, v;
    for (int lane = 0; lane < PER_STEP; lane++) up[lane] = (uint64_t)(63 - lane);
    for (int64_t i = 0; i < BLOCK; i += PER_STEP) {
        memcpy(&v, values + i, sizeof v);
        v ^= (((words[i / 64] >> i % 64) - (SIGNS){0}) << up) & ((uint64_t)1 << 63);
        memcpy(values + i, &v, sizeof v);
    }
}

static void FOR(add_line, double)(double *restrict to, const double *restrict values) {
    for (int64_t i = 0; i < BLOCK; i++) to[i] += values[i];
}

/* Add the elements start <= i < stop of a line to the buckets i mod 16. */
static void FOR(add_buckets, double)(double *buckets, const double *line, int64_t start, int64_t stop) {
    VALUES sums[BUCKETS / PER_STEP] = {{0}}, v;
    int64_t i = start;
    for (; i < stop && i % BUCKETS; i++) buckets[i % BUCKETS] += line[i];
    for (; i + BUCKETS <= stop; i += BUCKETS)
        for (int part = 0; part < BUCKETS / PER_STEP; part++) {
            memcpy(&v, line + i + part * PER_STEP, sizeof v);
            sums[part] += v;
        }
    for (int bucket = 0; bucket < BUCKETS; bucket++) buckets[bucket] += sums[bucket / PER_STEP][bucket % PER_STEP];
    for (; i < stop; i++) buckets[i % BUCKETS] += line[i];
}

/* Add the digest of a block of 8,192 bytes, or of fewer at the end of a tensor. */
static void FOR(add_digest, double)(const char *data, int64_t size, int64_t block, Moments *moments) {
    typedef uint32_t Halves __attribute__((vector_size(VECTOR_BYTES)));
    const uint64_t *keys = moments->keys, low = 0xFFFFFFFF;
    SIGNS sums[2] = {{0}};
    uint64_t words = (uint64_t)size / 8, i = 0, totals[2] = {0};
    for (; i + PER_STEP <= words; i += PER_STEP) {
        Halves word, key[2];
        memcpy(&word, data + 8 * i, sizeof word);
        for (int lane = 0; lane < 2; lane++) {
            memcpy(&key[lane], keys + i + lane, sizeof *key);
            SIGNS both = (SIGNS)(word + key[lane]);
            sums[lane] += (both & low) * (both >> 32);
        }
    }
    for (; 8 * i < (uint64_t)size; i++) {
        uint64_t word = 0;
        memcpy(&word, data + 8 * i, (size_t)smaller(8, size - 8 * (int64_t)i));
        for (int lane = 0; lane < 2; lane++)
            totals[lane] += ((word + keys[i + lane]) & low) * (((word >> 32) + (keys[i + lane] >> 32)) & low);
    }
    for (int lane = 0; lane < 2; lane++) {
        for (int part = 0; part < PER_STEP; part++) totals[lane] += sums[lane][part];
        moments->digest[lane] += mixed(totals[lane] + (uint64_t)block * BLOCK_STEP);
    }
}

/* Decode up to BLOCK elements, which begin at element `begin` of a tensor or row, and add them to its moments; what is
   not finite becomes 0. `size` is BLOCK unless they are the last of the tensor or row, which has `left` from here on. */
static void FOR(take_moments, double)(
    const Operand *operand, const char *data, int64_t size, int64_t left, int64_t begin, double *line, Moments *moments
) {
    int64_t integers[BLOCK];
    FOR(decode, double)(operand, data, size, line, integers);
    if (operand->code >= INT8 && operand->code <= UINT64) {
        FOR(add_digest, double)((const char *)integers, 8 * size, begin / BLOCK, moments);
        if (operand->code == UINT64)
            for (int64_t i = 0; i < size; i++) moments->is_beyond |= integers[i] < 0;
    } else if (begin * operand->itemsize % DIGEST_BYTES == 0) {
        int64_t bytes = smaller(left * operand->itemsize, DIGEST_BYTES);
        FOR(add_digest, double)(data, bytes, begin * operand->itemsize / DIGEST_BYTES, moments);
    }
    if (!FOR(take_range, double)(line, size, moments->lowest, &moments->min, &moments->max))
        take_odd(line, size, begin, moments);
    moments->sum += FOR(sum_of, double)(line, size);
}

static void FOR(summarise, double)(
    const Operand *operand, int64_t start, int64_t stop, const uint64_t *words, Summary *summary
) {
    double line[BLOCK], unrolled[2 * BLOCK] = {0};
    for (int64_t begin = start; begin < stop; begin += BLOCK) {
        int64_t size = smaller(BLOCK, stop - begin), number = (begin - start) / BLOCK;
        const char *data = operand->data + (begin - start) * operand->itemsize;
        FOR(take_moments, double)(operand, data, size, stop - begin, begin, line, &summary->moments);
        for (int64_t row = begin / summary->stretch, i = 0; i < size; row++) {
            int64_t end = smaller(size, (row + 1) * summary->stretch - begin);
            summary->row_squares[row] += FOR(squares_of, double)(line + i, end - i);
            i = end;
        }
        if (!summary->sketch) continue;
        const uint64_t *signs = words + number / LINES * LINES * (BLOCK / 64 + 1);
        uint64_t shift = signs[LINES * (BLOCK / 64) + number % LINES] % BLOCK;
        memset(line + size, 0, (size_t)(BLOCK - size) * sizeof *line);
        FOR(turn_signs, double)(line, signs + number % LINES * (BLOCK / 64));
        FOR(add_line, double)(unrolled + shift, line);
        int64_t wide = summary->stretch * summary->together;
        for (int64_t group = begin / wide, i = 0; i < size; group++) {
            int64_t end = smaller(size, (group + 1) * wide - begin);
            FOR(add_buckets, double)(summary->row_sketches + group * BUCKETS, line, i, end);
            i = end;
        }
    }
    if (summary->sketch)
        for (int64_t i = 0; i < BLOCK; i++) summary->sketch[i] += unrolled[i] + unrolled[BLOCK + i];
}

/* Add a block, whose signs are turned, to the buckets of a row: each line of ROW_BUCKETS elements from its shift on. */
static void FOR(add_short_lines, double)(double *restrict to, const double *restrict line, const uint64_t *shifts) {
    for (int64_t i = 0; i < BLOCK; i += ROW_BUCKETS) {
        uint64_t number = (uint64_t)i / ROW_BUCKETS, shift = shifts[number / 2] >> number % 2 * 32 & (ROW_BUCKETS - 1);
        for (int64_t place = 0; place < ROW_BUCKETS; place++) to[shift + (uint64_t)place] += line[i + place];
    }
}

static void FOR(summarise_rows, double)(
    const Operand *operand, int64_t rows, int64_t width, double lowest, const uint64_t *keys, const uint64_t *words,
    double *out
) {
    double line[BLOCK];
    for (int64_t row = 0; row < rows; row++) {
        const char *data = operand->data + row * width * operand->itemsize;
        Moments moments = {.min = INFINITY, .max = -INFINITY, .lowest = lowest, .keys = keys};
        double squares = 0, unrolled[2 * ROW_BUCKETS] = {0};
        for (int64_t begin = 0; begin < width; begin += BLOCK) {
            int64_t left = width - begin, size = smaller(BLOCK, left);
            FOR(take_moments, double)(operand, data + begin * operand->itemsize, size, left, begin, line, &moments);
            squares += FOR(squares_of, double)(line, size);
            if (!words) continue;
            const uint64_t *signs = words + begin / BLOCK * ROW_WORDS;
            memset(line + size, 0, (size_t)(BLOCK - size) * sizeof *line);
            FOR(turn_signs, double)(line, signs);
            FOR(add_short_lines, double)(unrolled, line, signs + BLOCK / 64);
        }
        if (moments.is_beyond) moments.digest[0] += mixed(BEYOND);
        for (int kind = 0; kind < 3; kind++) out[1 + kind] = (double)moments.counts[kind];
        const double sums[4] = {moments.sum, squares, moments.min, moments.max};
        memcpy(out + 4, sums, sizeof sums);
        const uint64_t digests[3] = {moments.digest[0], moments.digest[1], moments.places};
        for (int half = 0; half < 6; half++) out[8 + half] = (double)(uint32_t)(digests[half / 2] >> half % 2 * 32);
        out += ROW_HEAD;
        if (!words) continue;
        for (int i = 0; i < ROW_BUCKETS; i++) out[i] = unrolled[i] + unrolled[ROW_BUCKETS + i];
        out += ROW_BUCKETS;
    }
}

#undef VALUES
#undef SIGNS
#undef PER_STEP
#undef SUM_OF
#undef ITSELF
#undef SQUARE
