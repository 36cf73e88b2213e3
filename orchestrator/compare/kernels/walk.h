/* Where the elements of a region lie in the tensor around it: runs of neighbours, as strides.Walk describes them. */

/* With `starts` run number k begins there, at starts[k], and there are no levels. */
typedef struct {
    int64_t run, base, levels;
    const int64_t *sizes, *strides, *starts;
} Walk;

typedef struct {
    const char *data;
    int64_t itemsize, code;
    const float *float8_values; /* of the 256 bytes of this float8 type */
    Walk walk;
} Operand;

/* A place in a walk. Each level has at least two runs, so there are fewer than 63 of them. */
typedef struct {
    int64_t start;  /* flat index at which the run begins */
    int64_t within; /* elements of the run that lie behind */
    int64_t digits[63];
} Cursor;

static void seek(Cursor *cursor, const Walk *walk, int64_t position) {
    int64_t number = position / walk->run;
    cursor->within = position % walk->run;
    if (walk->starts) {
        cursor->digits[0] = number;
        cursor->start = walk->starts[number];
        return;
    }
    cursor->start = walk->base;
    for (int64_t level = walk->levels - 1; level >= 0; level--) {
        cursor->digits[level] = number % walk->sizes[level];
        number /= walk->sizes[level];
        cursor->start += cursor->digits[level] * walk->strides[level];
    }
}

/* Go on by `runs` whole runs, which must not leave the innermost level but for its end. */
static void next_runs(Cursor *cursor, const Walk *walk, int64_t runs) {
    int64_t level = walk->levels - 1;
    cursor->within = 0;
    if (walk->starts) {
        cursor->digits[0] += runs;
        cursor->start = walk->starts[cursor->digits[0]];
        return;
    }
    if (level < 0) return;
    cursor->start += runs * walk->strides[level];
    cursor->digits[level] += runs;
    while (cursor->digits[level] == walk->sizes[level] && level > 0) {
        cursor->start -= walk->sizes[level] * walk->strides[level];
        cursor->digits[level] = 0;
        level--;
        cursor->start += walk->strides[level];
        cursor->digits[level]++;
    }
}

static int64_t left_in_run(const Cursor *cursor, const Walk *walk) {
    return walk->run - cursor->within;
}

/* Go on by `count` elements, at most to the end of the run. */
static void advance(Cursor *cursor, const Walk *walk, int64_t count) {
    cursor->within += count;
    if (cursor->within == walk->run) next_runs(cursor, walk, 1);
}

static const char *place(const Cursor *cursor, const Operand *operand) {
    return operand->data + (cursor->start + cursor->within) * operand->itemsize;
}

/* The place of the next element but 2 * BLOCK, where runs are shorter: what lies far apart takes long to fetch. */
static const char *place_ahead(const Cursor *cursor, const Operand *operand) {
    const Walk *walk = &operand->walk;
    int64_t runs = walk->levels > 0 ? 2 * BLOCK / walk->run : 0;
    return place(cursor, operand) + runs * (runs > 0 ? walk->strides[walk->levels - 1] : 0) * operand->itemsize;
}

/* A constant size turns memcpy into one or two moves. */
#define COPY_RUNS(SIZE)                                                                                                \
    for (int64_t i = 0; i < count; i++) {                                                                              \
        __builtin_prefetch(source + (i + ahead) * stride);                                                             \
        memcpy(out + i * (SIZE), source + i * stride, (SIZE));                                                         \
    }                                                                                                                  \
    break

static void copy_runs(char *restrict out, const char *restrict source, int64_t size, int64_t stride, int64_t count, int64_t ahead) {
    switch (size) {
    case 1: COPY_RUNS(1);
    case 2: COPY_RUNS(2);
    case 4: COPY_RUNS(4);
    case 8: COPY_RUNS(8);
    case 16: COPY_RUNS(16);
    case 32: COPY_RUNS(32);
    case 64: COPY_RUNS(64);
    default: COPY_RUNS((size_t)size);
    }
}

/* Copy the next `count` elements together, and go on by them. */
static void gather(Cursor *cursor, const Operand *operand, int64_t count, char *out) {
    const Walk *walk = &operand->walk;
    int64_t itemsize = operand->itemsize, inner = walk->levels - 1;
    while (count > 0) {
        int64_t runs = 0;
        if (cursor->within == 0 && inner >= 0)
            runs = smaller(count / walk->run, walk->sizes[inner] - cursor->digits[inner]);
        int64_t taken = runs * walk->run;
        if (runs > 0) {
            copy_runs(out, place(cursor, operand), walk->run * itemsize, walk->strides[inner] * itemsize, runs, BLOCK / walk->run);
            next_runs(cursor, walk, runs);
        } else {
            taken = smaller(count, left_in_run(cursor, walk));
            memcpy(out, place(cursor, operand), (size_t)(taken * itemsize));
            advance(cursor, walk, taken);
        }
        out += taken * itemsize;
        count -= taken;
    }
}
