/* All that is compiled anew for each kind of CPU. */

#include "decode.h"

#define REAL double
#define BITS int64_t
#define UNSIGNED uint64_t
#define REAL_BITS 64
#define REAL_SUFFIX pd
#define LOWEST INT64_MIN
#define OWN_CODE FLOAT64
#include "scan.h"

#define REAL float
#define BITS int32_t
#define UNSIGNED uint32_t
#define REAL_BITS 32
#define REAL_SUFFIX ps
#define LOWEST INT32_MIN
#define OWN_CODE FLOAT32
#include "scan.h"

/* Write or add the elements start <= i < stop to `sums`: int64 if `exact`, else float64's bits. */
static void FOR(add_up, double)(const Operand *side, int64_t start, int64_t stop, bool exact, bool first, int64_t *sums) {
    double values[BLOCK], *floats = (double *)sums;
    int64_t integers[BLOCK];
    Cursor cursor;
    seek(&cursor, &side->walk, start);
    for (int64_t done = 0; done < stop - start;) {
        int64_t size = smaller(BLOCK, stop - start - done);
        const char *data = FOR(next_values, double)(side, &cursor, size, values, integers);
        for (int64_t i = 0; i < size; i++) {
            if (exact) {
                sums[done + i] = (int64_t)((first ? 0 : (uint64_t)sums[done + i]) + (uint64_t)integers[i]);
            } else {
                double value;
                memcpy(&value, data + 8 * i, 8);
                floats[done + i] = first ? value : floats[done + i] + value;
            }
        }
        done += size;
    }
}

#include "error_sums.h"
#include "summary.h"
#include "xxh3.h"
#undef TARGET
#undef VECTOR_BYTES
