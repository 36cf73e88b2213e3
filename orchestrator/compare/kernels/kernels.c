/* The comparison kernels: one pass over the bytes of a pair. See kernel.py for what they are given. */

#define _DEFAULT_SOURCE
#include <errno.h>
#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define PASTE(A, B) A##B
#define JOIN(A, B) PASTE(A, B)
#define FOR(BASE, REAL) JOIN(JOIN(JOIN(BASE, _), TARGET), JOIN(_, REAL)) /* the one for this CPU and this REAL */
#define INLINE static inline __attribute__((always_inline))
#define PRAGMA(TEXT) _Pragma(#TEXT)
#if defined(__clang__)
#define BEGIN_FOR(FEATURES) PRAGMA(clang attribute push(__attribute__((target(FEATURES))), apply_to = function))
#define END_FOR PRAGMA(clang attribute pop)
#else
#define BEGIN_FOR(FEATURES) PRAGMA(GCC push_options) PRAGMA(GCC target(FEATURES))
#define END_FOR PRAGMA(GCC pop_options)
#endif
#define LESSER(A, B) ((A) < (B) ? (A) : (B))
#define GREATER(A, B) ((A) > (B) ? (A) : (B))

/* Most elements that are reduced at a time, so that a lane adds up at most 64 values in float32. Of equal values, the
   worst case, the sum is then wrong by up to 0.99e-6; twice as many would miss 1e-6. */
#define BLOCK 1024

/* A run or a piece of a row of at least this length gets blocks of its own, which saves copying it or summing it
   again. */
#define OWN_BLOCK 128

enum { FLOAT64, FLOAT32, FLOAT16, BFLOAT16, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT8 };
enum { SUM_X, SUM_Y, SUM_XX, SUM_YY, SUM_XY, SUM_D, SUM_DD, SUM_ABS_D, SUM_REL_D, SUMS };
enum { MIN_X, MAX_X, MIN_Y, MAX_Y, MAX_REL_D, MAX_ABS_D, MAX_ABS_D_X, MAX_ABS_D_Y, EXTREMES };
enum { EQUAL, FINITE, OVER_1K, OVER_5K, OVER_TOLERANCE, NAN_X, NAN_Y = NAN_X + 3, NONFINITE_EQUAL = NAN_Y + 3, COUNTS };

INLINE int64_t smaller(int64_t a, int64_t b) { return LESSER(a, b); }

#include "bus_guard.h"
#include "walk.h"

typedef struct {
    int64_t width, group_bits;
    Walk walk;
    bool *seen;
    double *sum_xx, *sum_dd;
} Rows;

typedef struct {
    double rtol, atol, lowest_x, lowest_y;
} Limits;

typedef struct {
    double sums[SUMS], extremes[EXTREMES];
    int64_t counts[COUNTS], position;
    uint64_t distance;
    int64_t bits[2];
} Totals;

typedef struct {
    const Operand *x, *y;
    const Rows *rows;
    const Limits *limits;
    double scale;
    bool integers;
    int64_t unit_x, unit_y;
    Totals *totals;
} Scan;

/* The first 12 bits of a double are its sign and exponent. */
#define FIRST 4096

/* Neighbours are often of one size: counting them in different tables avoids waiting for the sum before. */
#define TABLES 4

/* Sums of x^2 and d^2 by groups of channels, and counts of d / rms by its first bits, those of 0 left out. A row has
   `row` values, `parts` for each channel, and begins with channel `first`. */
typedef struct {
    int64_t row, parts, first, group_bits;
    double rms, *sum_xx, *sum_dd;
    int64_t *counts;
} ErrorSums;

/* Lines (blocks) for which random words come together, and buckets of a projection by row: see tensor_summary.py. */
#define LINES 64
#define BUCKETS 16

/* Buckets of the projection of a row with a name, and numbers before them: see row_summaries.py. */
#define ROW_BUCKETS 32
#define ROW_HEAD 14
#define ROW_WORDS (2 * BLOCK / 64) /* random ones for each block: of its signs, then of its shifts */

/* Of digests: see digest.py. */
#define DIGEST_BYTES 8192
#define BLOCK_STEP 0xD1342543DE82EF95U
#define BEYOND 0xAC1C3BU

/* What is known of flat elements up to now. */
typedef struct {
    double sum, min, max, lowest;
    int64_t counts[3]; /* of NaN and infinities */
    uint64_t digest[2], places;
    bool is_beyond; /* any value is beyond int64 */
    const uint64_t *keys;
} Moments;

/* What is known of a tensor. */
typedef struct {
    Moments moments;
    int64_t stretch, together; /* elements by row group, row groups by projection */
    double *row_squares, *sketch, *row_sketches; /* no sketch: NULL */
} Summary;

/* Where the next block will be read. */
typedef struct {
    const char *x, *y;
    int64_t itemsize_x, itemsize_y;
} Ahead;

/* The elements up to `end` that share a group of rows; `next` is the row behind them. */
typedef struct {
    int64_t group, end;
    Cursor next;
} Segment;

static void next_segment(Segment *segment, const Rows *rows) {
    int64_t row = segment->next.start + segment->next.within, group = (int64_t)1 << rows->group_bits;
    int64_t count = smaller(left_in_run(&segment->next, &rows->walk), group - (row & (group - 1)));
    segment->group = row >> rows->group_bits;
    segment->end += count * rows->width;
    advance(&segment->next, &rows->walk, count);
}

static void first_segment(Segment *segment, const Rows *rows, int64_t position) {
    int64_t row = position / rows->width;
    seek(&segment->next, &rows->walk, row);
    segment->end = row * rows->width;
    next_segment(segment, rows);
}

/* End a block where what it shares ends, if that is long. */
static int64_t cut_block(int64_t size, int64_t left) { return left >= OWN_BLOCK ? smaller(size, left) : size; }

INLINE double total(const double lanes[8]) {
    typedef double Two __attribute__((vector_size(16)));
    Two parts[4];
    memcpy(parts, lanes, sizeof parts);
    Two sum = (parts[0] + parts[2]) + (parts[1] + parts[3]);
    return sum[0] + sum[1];
}

static void widen_range(Totals *totals, double low_x, double high_x, double low_y, double high_y) {
    /* + 0 turns -0 to 0 */
    totals->extremes[MIN_X] = LESSER(totals->extremes[MIN_X], low_x + 0);
    totals->extremes[MAX_X] = GREATER(totals->extremes[MAX_X], high_x + 0);
    totals->extremes[MIN_Y] = LESSER(totals->extremes[MIN_Y], low_y + 0);
    totals->extremes[MAX_Y] = GREATER(totals->extremes[MAX_Y], high_y + 0);
}

/* 0 for NaN, 1 and 2 for positive and negative infinity, -1 for finite values. */
static int nonfinite_class(double value) {
    if (isnan(value)) return 0;
    return isinf(value) ? (value > 0 ? 1 : 2) : -1;
}

/* Between 2^-100 and infinity, underflow has no effect on a sum of squares in float32: 1,024 times half the smallest
   subnormal is 2^-140. */
static bool is_wide_enough(double sum_of_squares) { return 0x1p-100 <= sum_of_squares && sum_of_squares < INFINITY; }

/* See labeling/shard/digest.py. */
static uint64_t mixed(uint64_t number) {
    number += 0x9E3779B97F4A7C15U;
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9U;
    number = (number ^ (number >> 27)) * 0x94D049BB133111EBU;
    return number ^ (number >> 31);
}

/* Count what is not finite, take its places and kinds, and put zeros there; of the rest take the range. */
static void take_odd(double *values, int64_t size, int64_t begin, Moments *moments) {
    for (int64_t i = 0; i < size; i++) {
        double value = values[i] <= moments->lowest ? -INFINITY : values[i];
        int kind = nonfinite_class(value);
        if (kind < 0) {
            moments->min = LESSER(moments->min, value);
            moments->max = GREATER(moments->max, value);
            continue;
        }
        moments->counts[kind]++;
        moments->places += mixed((uint64_t)(4 * (begin + i) + kind));
        values[i] = 0;
    }
}

static bool is_zero(const char *data, int64_t size) {
    uint32_t any = 0;
    for (int64_t i = 0; i < size; i++) {
        uint32_t bits;
        memcpy(&bits, data + 4 * i, 4);
        any |= bits;
    }
    return (any & 0x7FFFFFFF) == 0;
}

/* Without `same_sign`, one of the arrays holds the bits of uint64. */
static int64_t count_equal(const int64_t *x, const int64_t *y, int64_t size, bool same_sign) {
    int64_t count = 0;
    for (int64_t i = 0; i < size; i++) count += (x[i] == y[i]) & (same_sign | (x[i] >= 0));
    return count;
}

static uint16_t load_uint16(const char *data) {
    uint16_t value;
    memcpy(&value, data, 2);
    return value;
}

/* XXH3's default secret. */
static const uint8_t secret[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

static uint64_t load_uint64(const void *data) {
    uint64_t value;
    memcpy(&value, data, 8);
    return value;
}

#if defined(__x86_64__)
/* GCC's __builtin_cpu_supports knows F16C only since GCC 11. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

#define TARGET plain
#define VECTOR_BYTES 16
#include "target.h"

#if defined(__x86_64__)
BEGIN_FOR("avx2,f16c,popcnt")
#define TARGET avx2
#define VECTOR_BYTES 32
#include "target.h"
END_FOR

BEGIN_FOR("avx2,f16c,popcnt,avx512f,avx512dq,avx512bw,avx512vl")
#define TARGET avx512
#define VECTOR_BYTES 64
#include "target.h"
END_FOR
#endif

typedef struct {
    void (*scan32)(const Scan *, int64_t, int64_t), (*scan64)(const Scan *, int64_t, int64_t);
    void (*add_up)(const Operand *, int64_t, int64_t, bool, bool, int64_t *);
    int64_t (*sum_errors)(const Operand *, const Operand *, int64_t, int64_t, double, double, const ErrorSums *);
    void (*summarise)(const Operand *, int64_t, int64_t, const uint64_t *, Summary *);
    void (*summarise_rows)(const Operand *, int64_t, int64_t, double, const uint64_t *, const uint64_t *, double *);
    uint64_t (*xxh3)(const char *, int64_t);
} Target;

#define TARGET(kind) \
    {scan_##kind##_float,        scan_##kind##_double,      add_up_##kind##_double, \
     sum_errors_##kind##_double, summarise_##kind##_double, summarise_rows_##kind##_double, \
     xxh3_##kind##_double}

static const Target targets[] = {
    TARGET(plain),
#if defined(__x86_64__)
    TARGET(avx2),
    TARGET(avx512),
#endif
};

static const Target *target = targets;

/* Use the last of the targets up to number `most` that this CPU can execute; return its number. */
int use_target(int most) {
    int best = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && has_f16c()) best = 1;
    if (best == 1 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        best = 2;
#endif
    best = LESSER(most, best);
    target = targets + best;
    return best;
}

/* The hash of these sources, by which the loader knows whether the library belongs to them. */
const char *kernel_version(void) { return KERNEL_VERSION; }

/* The lowest bit that a value of this type can set in the mantissa of float32, or of float64 by `shift` more. */
static int64_t lowest_bit(int64_t code, int shift) {
    if (code == BFLOAT16) return (int64_t)1 << (16 + shift);
    if (code == FLOAT16) return (int64_t)1 << (13 + shift);
    return code == FLOAT32 ? (int64_t)1 << shift : 1;
}

void scan32(
    const Operand *x, const Operand *y, const Rows *rows, const Limits *limits, double scale, int64_t start,
    int64_t stop, Totals *totals
) {
    Scan scan = {x, y, rows, limits, scale, false, lowest_bit(x->code, 0), lowest_bit(y->code, 0), totals};
    target->scan32(&scan, start, stop);
}

void scan64(
    const Operand *x, const Operand *y, const Rows *rows, const Limits *limits, bool integers, int64_t start,
    int64_t stop, Totals *totals
) {
    Scan scan = {x, y, rows, limits, 1, integers, lowest_bit(x->code, 29), lowest_bit(y->code, 29), totals};
    target->scan64(&scan, start, stop);
}

void add_up(const Operand *side, int64_t start, int64_t stop, bool exact, bool first, int64_t *sums) {
    target->add_up(side, start, stop, exact, first, sums);
}

int64_t sum_errors(
    const Operand *x, const Operand *y, int64_t start, int64_t stop, double lowest_x, double lowest_y,
    const ErrorSums *sums
) {
    return target->sum_errors(x, y, start, stop, lowest_x, lowest_y, sums);
}

/* Add to a summary the elements start <= i < stop of a tensor, whose bytes `data` are. `start` is a multiple of
   LINES * BLOCK; `words` are the random ones from there on. */
void summarise(
    const char *data, int64_t itemsize, int64_t code, const float *float8_values, int64_t start, int64_t stop,
    const uint64_t *words, Summary *summary
) {
    Operand operand = {.data = data, .itemsize = itemsize, .code = code, .float8_values = float8_values};
    target->summarise(&operand, start, stop, words, summary);
}

/* Write the summaries of `rows` rows of `width` values, whose bytes `data` are, one behind the other to `out`. `words` are
   the random ones of a row; without them (NULL) no projection follows the first ROW_HEAD numbers of a row. */
void summarise_rows(
    const char *data, int64_t itemsize, int64_t code, const float *float8_values, int64_t rows, int64_t width,
    double lowest, const uint64_t *keys, const uint64_t *words, double *out
) {
    Operand operand = {.data = data, .itemsize = itemsize, .code = code, .float8_values = float8_values};
    target->summarise_rows(&operand, rows, width, lowest, keys, words, out);
}

/* Hashes (XXH3, 64 bits) of `count` pieces of more than 240 bytes each: a call from Python for each of thousands of rows
   takes several times as long as the hash. */
void hash_pieces(const char *const *pieces, const int64_t *sizes, int64_t count, uint64_t *hashes) {
    for (int64_t i = 0; i < count; i++) hashes[i] = target->xxh3(pieces[i], sizes[i]);
}

/* Read `count` pieces of files to where each starts in `out`, and hash those of more than 240 bytes while they are in the
   cache. Return how many were read: fewer than `count` if one ends before its last byte, or its disk fails. */
int64_t read_pieces(
    int64_t descriptor, const int64_t *offsets, const int64_t *sizes, const int64_t *starts, int64_t count,
    char *out, uint64_t *hashes
) {
    for (int64_t i = 0; i < count; i++) {
        char *piece = out + starts[i];
        for (int64_t done = 0; done < sizes[i];) {
            ssize_t got = pread((int)descriptor, piece + done, (size_t)(sizes[i] - done), offsets[i] + done);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) return i;
            done += got;
        }
        if (sizes[i] > 240) hashes[i] = target->xxh3(piece, sizes[i]);
    }
    return count;
}

/* Copy `size` bytes from each of `count` addresses to `out`, one behind the other. */
void gather_rows(const char *const *rows, int64_t count, int64_t size, char *out) {
    for (int64_t i = 0; i < count; i++) {
        if (i + 2 < count) __builtin_prefetch(rows[i + 2]);
        memcpy(out + i * size, rows[i], (size_t)size);
    }
}
