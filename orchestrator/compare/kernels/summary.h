/* The moments and random projections of a tensor, as labeling/shard/tensor_summary.py defines them. Included once for
   each kind of CPU. */

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

static void FOR(summarise, double)(
    const Operand *operand, int64_t start, int64_t stop, const uint64_t *words, Summary *summary
) {
    double line[BLOCK], unrolled[2 * BLOCK] = {0};
    int64_t integers[BLOCK];
    for (int64_t begin = start; begin < stop; begin += BLOCK) {
        int64_t size = smaller(BLOCK, stop - begin), number = (begin - start) / BLOCK;
        FOR(decode, double)(operand, operand->data + (begin - start) * operand->itemsize, size, line, integers);
        if (!FOR(take_range, double)(line, size, summary->lowest, &summary->min, &summary->max))
            take_odd(line, size, begin, summary);
        summary->sum += FOR(sum_of, double)(line, size);
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

#undef VALUES
#undef SIGNS
#undef PER_STEP
#undef SUM_OF
#undef ITSELF
#undef SQUARE
