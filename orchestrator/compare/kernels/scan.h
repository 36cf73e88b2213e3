/* The one pass over a pair's bytes, for one kind of CPU and one REAL: blocks of both regions are decoded, reduced, and
   added up in float64. */

#define NAME(BASE) FOR(BASE, REAL)
#define LANES (64 / (REAL_BITS / 8))
#define PER_VECTOR (VECTOR_BYTES / (REAL_BITS / 8))
#define GROUPS (LANES / PER_VECTOR)
#define PER_WIDE (VECTOR_BYTES / 8)
#include "lanes.h"

/* What one block gives, lane by lane. */
typedef struct {
    NAME(Reals) sums[SUMS][GROUPS];
    NAME(Reals) min_x[GROUPS], max_x[GROUPS], min_y[GROUPS], max_y[GROUPS], max_abs_d[GROUPS], max_rel_d[GROUPS];
    NAME(Unsigned) distance[GROUPS];
    int64_t over_1k, over_5k, over_tolerance, equal;
} NAME(Block);

/* What a scan adds up, lane by lane. */
typedef struct {
    double sums[SUMS][8];
    NAME(Reals) min_x[GROUPS], max_x[GROUPS], min_y[GROUPS], max_y[GROUPS], max_rel_d[GROUPS];
    NAME(Unsigned) distance[GROUPS];
} NAME(Lanes);

/* The registers of `reduce`. */
typedef struct {
    NAME(Reals) x, y, xx, yy, xy, d, dd, abs_d, rel_d, min_x, max_x, min_y, max_y, max_abs_d, max_rel_d;
    NAME(Unsigned) distance;
    NAME(Count) over_1k, over_5k, over_tolerance, equal;
} NAME(Registers);

INLINE NAME(Reals) NAME(load)(const void *data) {
    NAME(Reals) values;
    memcpy(&values, data, sizeof values);
    return values;
}

INLINE NAME(Reals) NAME(all)(REAL value) { return value - (NAME(Reals)){0}; }

/* Add vectors of x and y; the extremes are those of edge_x and edge_y. */
INLINE void NAME(step)(
    NAME(Registers) *to, NAME(Reals) x, NAME(Reals) y, NAME(Reals) edge_x, NAME(Reals) edge_y, REAL rtol, REAL atol,
    REAL scale, bool scaled
) {
    NAME(Bits) bits_x = (NAME(Bits))x, bits_y = (NAME(Bits))y;
    NAME(Reals) d = y - x;
    NAME(Reals) size = (NAME(Reals))(bits_x & ~LOWEST), error = (NAME(Reals))((NAME(Bits))d & ~LOWEST);
    to->x += x;
    to->y += y;
    to->xx += x * x;
    to->yy += y * y;
    to->xy += x * y;
    to->d += d;
    to->dd += d * d;
    to->abs_d += error;
    to->max_abs_d = NAME(max)(error, to->max_abs_d);
    NAME(count_greater)(&to->over_tolerance, error, NAME(all)(rtol) * size + NAME(all)(atol));
    NAME(Reals) ratio = error / size; /* at x = 0 infinite, which is over, or NaN, which is not */
    NAME(count_greater)(&to->over_1k, ratio, NAME(all)((REAL)1e-3));
    NAME(count_greater)(&to->over_5k, ratio, NAME(all)((REAL)5e-3));
    ratio = NAME(zero_where_zero)(ratio, size);
    to->rel_d += ratio;
    to->max_rel_d = NAME(max)(ratio, to->max_rel_d);
    to->min_x = NAME(min)(edge_x, to->min_x);
    to->max_x = NAME(max)(edge_x, to->max_x);
    to->min_y = NAME(min)(edge_y, to->min_y);
    to->max_y = NAME(max)(edge_y, to->max_y);
    NAME(count_same)(&to->equal, bits_x, bits_y);
    if (scaled) {
        bits_x = (NAME(Bits))(x * NAME(all)(scale));
        bits_y = (NAME(Bits))(y * NAME(all)(scale));
    }
    to->distance = NAME(larger)(NAME(distance)(NAME(ordinal)(bits_x), NAME(ordinal)(bits_y)), to->distance);
}

/* Reduce `size` elements, and fetch those ahead into the cache. A CPU whose vectors hold only some of the lanes goes
   over the elements several times, so that all its sums stay in registers and are those of any other CPU. */
INLINE void NAME(reduce_any)(
    const char *x, const char *y, int64_t size, const Limits *limits, double scale, bool scaled, const Ahead *ahead,
    NAME(Block) *block
) {
    REAL rtol = (REAL)limits->rtol, atol = (REAL)limits->atol;
    int64_t whole = size / LANES * LANES, rest = size - whole;
    REAL last_x[LANES] = {0}, last_y[LANES] = {0}, edge_x[LANES], edge_y[LANES];
    if (rest > 0) {
        memcpy(last_x, x + whole * (int64_t)sizeof(REAL), (size_t)rest * sizeof(REAL));
        memcpy(last_y, y + whole * (int64_t)sizeof(REAL), (size_t)rest * sizeof(REAL));
        for (int64_t lane = 0; lane < LANES; lane++) {
            edge_x[lane] = last_x[lane < rest ? lane : 0];
            edge_y[lane] = last_y[lane < rest ? lane : 0];
        }
    }
    block->over_1k = block->over_5k = block->over_tolerance = 0;
    block->equal = rest > 0 ? rest - LANES : 0; /* the zeros behind the rest are equal */
    for (int64_t group = 0; group < GROUPS; group++) {
        NAME(Registers) all;
        all.x = all.y = all.xx = all.yy = all.xy = all.d = all.dd = all.abs_d = all.rel_d = NAME(all)(0);
        all.min_x = all.min_y = NAME(all)((REAL)INFINITY);
        all.max_x = all.max_y = NAME(all)(-(REAL)INFINITY);
        all.max_abs_d = all.max_rel_d = NAME(all)(0);
        all.distance = (NAME(Unsigned)){0};
        all.over_1k = all.over_5k = all.over_tolerance = all.equal = (NAME(Count)){0};
        for (int64_t i = group * PER_VECTOR; i < whole; i += LANES) {
            if (group == 0) {
                __builtin_prefetch(ahead->x + i * ahead->itemsize_x);
                __builtin_prefetch(ahead->y + i * ahead->itemsize_y);
            }
            NAME(Reals) a = NAME(load)(x + i * (int64_t)sizeof(REAL)), b = NAME(load)(y + i * (int64_t)sizeof(REAL));
            NAME(step)(&all, a, b, a, b, rtol, atol, (REAL)scale, scaled);
        }
        if (rest > 0) {
            int64_t i = group * PER_VECTOR;
            NAME(step)(
                &all, NAME(load)(last_x + i), NAME(load)(last_y + i), NAME(load)(edge_x + i), NAME(load)(edge_y + i),
                rtol, atol, (REAL)scale, scaled
            );
        }
        block->sums[SUM_X][group] = all.x;
        block->sums[SUM_Y][group] = all.y;
        block->sums[SUM_XX][group] = all.xx;
        block->sums[SUM_YY][group] = all.yy;
        block->sums[SUM_XY][group] = all.xy;
        block->sums[SUM_D][group] = all.d;
        block->sums[SUM_DD][group] = all.dd;
        block->sums[SUM_ABS_D][group] = all.abs_d;
        block->sums[SUM_REL_D][group] = all.rel_d;
        block->min_x[group] = all.min_x;
        block->max_x[group] = all.max_x;
        block->min_y[group] = all.min_y;
        block->max_y[group] = all.max_y;
        block->max_abs_d[group] = all.max_abs_d;
        block->max_rel_d[group] = all.max_rel_d;
        block->distance[group] = all.distance;
        block->over_1k += NAME(counted)(all.over_1k);
        block->over_5k += NAME(counted)(all.over_5k);
        block->over_tolerance += NAME(counted)(all.over_tolerance);
        block->equal += NAME(counted)(all.equal);
    }
}

static __attribute__((noinline)) void NAME(reduce)(
    const char *x, const char *y, int64_t size, const Limits *limits, double scale, const Ahead *ahead,
    NAME(Block) *block
) {
    if (scale == 1)
        NAME(reduce_any)(x, y, size, limits, 1, false, ahead, block);
    else
        NAME(reduce_any)(x, y, size, limits, scale, true, ahead, block);
}

INLINE REAL NAME(at)(const char *data, int64_t i) {
    REAL value;
    memcpy(&value, data + i * (int64_t)sizeof value, sizeof value);
    return value;
}

/* Spread the sums of a block over eight lanes of float64: lane i and lane i + 8 come together. */
INLINE void NAME(widen)(const NAME(Block) *block, double sums[SUMS][8]) {
    for (int64_t number = 0; number < SUMS; number++)
        for (int64_t lane = 0; lane < 8; lane += PER_WIDE) {
            NAME(Wide) sum = {0};
            for (int64_t part = lane; part < LANES; part += 8) {
                NAME(Narrow) narrow;
                memcpy(&narrow, (const char *)block->sums[number] + part * (int64_t)sizeof(REAL), sizeof narrow);
                sum += __builtin_convertvector(narrow, NAME(Wide));
            }
            memcpy(sums[number] + lane, &sum, sizeof sum);
        }
}

static double NAME(largest)(const NAME(Reals) lanes[GROUPS]) {
    NAME(Reals) most = lanes[0];
    for (int64_t group = 1; group < GROUPS; group++) most = NAME(max)(lanes[group], most);
    REAL value = most[0];
    for (int64_t lane = 1; lane < PER_VECTOR; lane++) value = GREATER(value, most[lane]);
    return (double)value;
}

/* The number of lanes greater than a limit. */
static int64_t NAME(lanes_greater)(const NAME(Reals) lanes[GROUPS], REAL limit) {
    NAME(Count) count = {0};
    for (int64_t group = 0; group < GROUPS; group++) NAME(count_greater)(&count, lanes[group], NAME(all)(limit));
    return NAME(counted)(count);
}

/* Add the bits that are set in any value; `unit` is the lowest that can be, behind which nothing new is found. */
static void NAME(add_bits)(const char *data, int64_t size, int64_t unit, int64_t *bits) {
    if (*bits & (2 * unit - 1)) return;
    BITS any = 0;
    for (int64_t i = 0; i < size; i++) {
        BITS value;
        memcpy(&value, data + i * (int64_t)sizeof value, sizeof value);
        any |= value;
    }
    *bits |= any;
}

/* Copy x and y to fx and fy, with zeros where not both are finite; return the number of these positions.

   Non-finite values are counted, and the ranges are widened by the finite ones. Where both sides are -inf or the lowest
   value of their types, as in masks, both count as -inf. */
static int64_t NAME(mask_nonfinite)(
    const char *x, const char *y, int64_t size, const Limits *limits, REAL *fx, REAL *fy, Totals *totals
) {
    int64_t masked = 0;
    for (int64_t i = 0; i < size; i++) {
        REAL a = NAME(at)(x, i), b = NAME(at)(y, i);
        bool hidden = (double)a <= limits->lowest_x && (double)b <= limits->lowest_y;
        if (!hidden && isfinite(a) && isfinite(b)) {
            fx[i] = a;
            fy[i] = b;
            widen_range(totals, (double)a, (double)a, (double)b, (double)b);
            continue;
        }
        fx[i] = fy[i] = 0;
        masked++;
        int class_x = hidden ? 2 : nonfinite_class((double)a), class_y = hidden ? 2 : nonfinite_class((double)b);
        if (class_x >= 0) totals->counts[NAN_X + class_x]++;
        if (class_y >= 0) totals->counts[NAN_Y + class_y]++;
        if (class_x == class_y) {
            totals->counts[NONFINITE_EQUAL]++;
            totals->counts[EQUAL] += !hidden || a == b;
        }
    }
    return masked;
}

/* Update the largest |d|, taken in float64, by a block's; fx and fy are x and y with zeros at non-finite pairs. Only
   stretches with a |d| above `beaten`, as REAL, are looked at: rounded values often reach the same maximum. */
static void NAME(update_max_difference)(
    const char *x, const char *y, const char *fx, const char *fy, int64_t size, int64_t position, REAL beaten,
    Totals *totals
) {
    for (int64_t begin = 0, end; begin < size; begin = end) {
        end = smaller(size, begin + 64);
        int reached = 0;
        for (int64_t i = begin; i < end; i++) {
            REAL d = NAME(at)(fy, i) - NAME(at)(fx, i);
            reached |= (d > beaten) | (-d > beaten);
        }
        if (!reached) continue;
        int64_t most = 0; /* the bits of the largest; compared as integers, which is vectorised */
        for (int64_t i = begin; i < end; i++) {
            double d = fabs((double)NAME(at)(fy, i) - (double)NAME(at)(fx, i));
            int64_t bits;
            memcpy(&bits, &d, sizeof bits);
            most = bits > most ? bits : most;
        }
        double largest;
        memcpy(&largest, &most, sizeof largest);
        for (int64_t i = begin; i < end && largest > totals->extremes[MAX_ABS_D]; i++) {
            double a = (double)NAME(at)(x, i), b = (double)NAME(at)(y, i);
            bool counts = (double)NAME(at)(fx, i) == a && (double)NAME(at)(fy, i) == b;
            if (!counts || fabs(b - a) != largest) continue;
            totals->extremes[MAX_ABS_D] = largest;
            totals->extremes[MAX_ABS_D_X] = a;
            totals->extremes[MAX_ABS_D_Y] = b;
            totals->position = position + i;
        }
    }
}

/* The sums of x^2 and d^2 over begin <= i < end, in float64. */
static void NAME(square_sums)(
    const char *x, const char *y, int64_t begin, int64_t end, double *sum_xx, double *sum_dd
) {
    double xx = 0, dd = 0;
    if (end - begin >= 8) {
        enum { PARTS = 8 / PER_WIDE };
        NAME(Wide) lanes_xx[PARTS] = {{0}}, lanes_dd[PARTS] = {{0}};
        for (; begin + 8 <= end; begin += 8)
            for (int64_t part = 0; part < PARTS; part++) {
                int64_t at = (begin + part * PER_WIDE) * (int64_t)sizeof(REAL);
                NAME(Narrow) narrow_a, narrow_b;
                memcpy(&narrow_a, x + at, sizeof narrow_a);
                memcpy(&narrow_b, y + at, sizeof narrow_b);
                NAME(Wide) a = __builtin_convertvector(narrow_a, NAME(Wide));
                NAME(Wide) d = __builtin_convertvector(narrow_b, NAME(Wide)) - a;
                lanes_xx[part] += a * a;
                lanes_dd[part] += d * d;
            }
        double lanes[2][8];
        memcpy(lanes[0], lanes_xx, sizeof lanes_xx);
        memcpy(lanes[1], lanes_dd, sizeof lanes_dd);
        xx = total(lanes[0]);
        dd = total(lanes[1]);
    }
    for (; begin < end; begin++) {
        double a = (double)NAME(at)(x, begin), d = (double)NAME(at)(y, begin) - a;
        xx += a * a;
        dd += d * d;
    }
    *sum_xx += xx;
    *sum_dd += dd;
}

/* Add up a block that begins at `position` by rows. */
static void NAME(add_rows)(
    const char *x, const char *y, int64_t size, int64_t position, const Rows *rows, Segment *segment
) {
    for (int64_t begin = 0; begin < size;) {
        if (position + begin == segment->end) next_segment(segment, rows);
        int64_t end = smaller(size, segment->end - position);
        NAME(square_sums)(x, y, begin, end, rows->sum_xx + segment->group, rows->sum_dd + segment->group);
        rows->seen[segment->group] = true;
        begin = end;
    }
}

#if REAL_BITS == 32
/* Sum a block again where float32 was not wide enough; return the largest |d|. */
static __attribute__((noinline)) double NAME(sum_again)(
    const char *x, const char *y, int64_t size, const Limits *limits, double sums[SUMS][8], double *max_rel_d
) {
    double wide_x[BLOCK], wide_y[BLOCK];
    for (int64_t i = 0; i < size; i++) {
        wide_x[i] = (double)NAME(at)(x, i);
        wide_y[i] = (double)NAME(at)(y, i);
    }
    const char *bytes_x = (const char *)wide_x, *bytes_y = (const char *)wide_y;
    Ahead nothing = {bytes_x, bytes_y, 0, 0};
    FOR(Block, double) block;
    FOR(reduce, double)(bytes_x, bytes_y, size, limits, 1, &nothing, &block);
    FOR(widen, double)(&block, sums);
    *max_rel_d = FOR(largest, double)(block.max_rel_d);
    return FOR(largest, double)(block.max_abs_d);
}
#endif

/* Add a block whose first element is number `position` of the region. */
static void NAME(add_block)(
    const char *x, const char *y, int64_t size, int64_t position, const Scan *scan, const Ahead *ahead,
    Segment *segment, NAME(Lanes) *lanes
) {
    Totals *totals = scan->totals;
    const Limits *limits = scan->limits;
    NAME(Block) block;
    double sums[SUMS][8];
    REAL finite_x[BLOCK], finite_y[BLOCK];
    const char *fx = x, *fy = y;
    int64_t masked = 0;
    NAME(reduce)(x, y, size, limits, scan->scale, ahead, &block);
    NAME(widen)(&block, sums);
    double xx = total(sums[SUM_XX]), yy = total(sums[SUM_YY]);
    bool is_finite = xx < INFINITY && yy < INFINITY; /* or the squares are too large, which does no harm */
    bool is_hidden = NAME(lanes_greater)(block.min_x, (REAL)limits->lowest_x) < LANES &&
                     NAME(lanes_greater)(block.min_y, (REAL)limits->lowest_y) < LANES;
    if (!is_finite || is_hidden) {
        masked = NAME(mask_nonfinite)(x, y, size, limits, finite_x, finite_y, totals);
        fx = (const char *)finite_x;
        fy = (const char *)finite_y;
        NAME(reduce)(fx, fy, size, limits, scan->scale, ahead, &block);
        NAME(widen)(&block, sums);
        xx = total(sums[SUM_XX]);
        yy = total(sums[SUM_YY]);
    }
    double dd = total(sums[SUM_DD]);
    /* float32 may have rounded |d| down by half a unit */
    double beaten = totals->extremes[MAX_ABS_D] * (1 - 0x1p-22);
    bool is_larger = NAME(lanes_greater)(block.max_abs_d, (REAL)beaten) > 0;
#if REAL_BITS == 32
    bool is_wide = is_wide_enough(xx) || (xx == 0 && is_zero(fx, size));
    is_wide = is_wide && (is_wide_enough(yy) || (yy == 0 && is_zero(fy, size)));
    is_wide = is_wide && (is_wide_enough(dd) || NAME(lanes_greater)(block.max_abs_d, 0) == 0);
    if (!is_wide || NAME(lanes_greater)(block.max_rel_d, FLT_MAX / BLOCK) > 0) {
        double max_rel_d;
        is_larger = NAME(sum_again)(fx, fy, size, limits, sums, &max_rel_d) > beaten;
        xx = total(sums[SUM_XX]);
        dd = total(sums[SUM_DD]);
        totals->extremes[MAX_REL_D] = fmax(totals->extremes[MAX_REL_D], max_rel_d);
        for (int64_t group = 0; group < GROUPS; group++) block.max_rel_d[group] = NAME(all)(0);
    }
#endif
    for (int64_t number = 0; number < SUMS; number++)
        for (int64_t lane = 0; lane < 8; lane++) lanes->sums[number][lane] += sums[number][lane];
    for (int64_t group = 0; group < GROUPS; group++) {
        lanes->max_rel_d[group] = NAME(max)(block.max_rel_d[group], lanes->max_rel_d[group]);
        lanes->distance[group] = NAME(larger)(block.distance[group], lanes->distance[group]);
        if (fx != x) continue; /* the ranges were widened */
        lanes->min_x[group] = NAME(min)(block.min_x[group], lanes->min_x[group]);
        lanes->max_x[group] = NAME(max)(block.max_x[group], lanes->max_x[group]);
        lanes->min_y[group] = NAME(min)(block.min_y[group], lanes->min_y[group]);
        lanes->max_y[group] = NAME(max)(block.max_y[group], lanes->max_y[group]);
    }
    totals->counts[EQUAL] += block.equal - masked;
    totals->counts[FINITE] += size - masked;
    totals->counts[OVER_1K] += block.over_1k;
    totals->counts[OVER_5K] += block.over_5k;
    totals->counts[OVER_TOLERANCE] += block.over_tolerance;
    NAME(add_bits)(fx, size, scan->unit_x, &totals->bits[0]);
    NAME(add_bits)(fy, size, scan->unit_y, &totals->bits[1]);
    if (size > masked && is_larger)
        NAME(update_max_difference)(x, y, fx, fy, size, position, (REAL)beaten, totals);
    if (position + size <= segment->end) {
        scan->rows->seen[segment->group] = true;
        scan->rows->sum_xx[segment->group] += xx;
        scan->rows->sum_dd[segment->group] += dd;
    } else {
        NAME(add_rows)(fx, fy, size, position, scan->rows, segment);
    }
}

/* Return the next `size` values of an operand: in place, or gathered and decoded in `values`. */
static const char *NAME(next_values)(
    const Operand *operand, Cursor *cursor, int64_t size, REAL *values, int64_t *exact
) {
    char gathered[8 * BLOCK];
    const char *data = place(cursor, operand);
    bool is_decoded = operand->code == OWN_CODE;
    if (left_in_run(cursor, &operand->walk) >= size) {
        advance(cursor, &operand->walk, size);
    } else {
        char *out = is_decoded ? (char *)values : gathered;
        gather(cursor, operand, size, out);
        data = out;
    }
    if (is_decoded) return data;
    NAME(decode)(operand, data, size, values, exact);
    return (const char *)values;
}

/* Add to the totals the elements start <= i < stop of a pair. */
static void NAME(scan)(const Scan *scan, int64_t start, int64_t stop) {
    const Operand *x = scan->x, *y = scan->y;
    Totals *totals = scan->totals;
    bool has_integers = REAL_BITS == 64 && scan->integers;
    REAL values_x[BLOCK], values_y[BLOCK];
    int64_t exact_x[BLOCK], exact_y[BLOCK], equal = totals->counts[EQUAL];
    NAME(Lanes) lanes;
    memset(&lanes, 0, sizeof lanes);
    for (int64_t group = 0; group < GROUPS; group++) {
        lanes.min_x[group] = lanes.min_y[group] = NAME(all)((REAL)INFINITY);
        lanes.max_x[group] = lanes.max_y[group] = NAME(all)(-(REAL)INFINITY);
    }
    Cursor cursor_x, cursor_y;
    Segment segment;
    seek(&cursor_x, &x->walk, start);
    seek(&cursor_y, &y->walk, start);
    first_segment(&segment, scan->rows, start);
    for (int64_t position = start; position < stop;) {
        int64_t size = smaller(BLOCK, stop - position);
        if (position == segment.end) next_segment(&segment, scan->rows);
        size = cut_block(size, segment.end - position);
        size = cut_block(size, left_in_run(&cursor_x, &x->walk));
        size = cut_block(size, left_in_run(&cursor_y, &y->walk));
        const char *of_x = NAME(next_values)(x, &cursor_x, size, values_x, exact_x);
        const char *of_y = NAME(next_values)(y, &cursor_y, size, values_y, exact_y);
        Ahead ahead = {place_ahead(&cursor_x, x), place_ahead(&cursor_y, y), x->itemsize, y->itemsize};
        if (x->walk.run < OWN_BLOCK) ahead.itemsize_x = 0;
        if (y->walk.run < OWN_BLOCK) ahead.itemsize_y = 0;
        NAME(add_block)(of_x, of_y, size, position, scan, &ahead, &segment, &lanes);
        if (has_integers) equal += count_equal(exact_x, exact_y, size, (x->code == UINT64) == (y->code == UINT64));
        position += size;
    }
    if (has_integers) totals->counts[EQUAL] = equal;
    for (int64_t number = 0; number < SUMS; number++) totals->sums[number] += total(lanes.sums[number]);
    totals->extremes[MAX_REL_D] = fmax(totals->extremes[MAX_REL_D], NAME(largest)(lanes.max_rel_d));
    for (int64_t group = 0; group < GROUPS; group++)
        for (int64_t lane = 0; lane < PER_VECTOR; lane++) {
            widen_range(
                totals, (double)lanes.min_x[group][lane], (double)lanes.max_x[group][lane],
                (double)lanes.min_y[group][lane], (double)lanes.max_y[group][lane]
            );
            totals->distance = GREATER(lanes.distance[group][lane], totals->distance);
        }
}

#undef NAME
#undef LANES
#undef PER_VECTOR
#undef GROUPS
#undef PER_WIDE
#undef REAL
#undef BITS
#undef UNSIGNED
#undef REAL_BITS
#undef REAL_SUFFIX
#undef LOWEST
#undef OWN_CODE
