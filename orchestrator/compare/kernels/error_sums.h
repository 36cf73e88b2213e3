/* Sums of a second look: squares by channel, and counts of errors by size. Included once for each kind of CPU. */

/* Add a block whose first value is number `position` of the region, if all its values are finite and above the lowest.
*/
static bool FOR(add_errors, double)(
    const char *of_x, const char *of_y, int64_t size, int64_t position, double lowest_x, double lowest_y,
    const ErrorSums *sums, uint32_t (*tables)[FIRST]
) {
    double xx[BLOCK], dd[BLOCK], relative[BLOCK];
    const double rms = sums->rms, scale = 1 / rms;
    const bool is_divided = !(scale >= DBL_MIN && scale <= DBL_MAX);
    int64_t zeros = 0, odd = 0;
    for (int64_t i = 0; i < size; i++) {
        double x, y;
        memcpy(&x, of_x + 8 * i, 8);
        memcpy(&y, of_y + 8 * i, 8);
        double d = y - x;
        xx[i] = x * x;
        dd[i] = d * d;
        zeros += d == 0;
        odd += !(x > lowest_x) | !(x < INFINITY) | !(y > lowest_y) | !(y < INFINITY);
        relative[i] = is_divided ? d / rms : d * scale;
    }
    if (odd) return false;
    for (int64_t at = 0, end; at < size; at = end) {
        int64_t within = (position + at) % sums->row;
        end = smaller(size, at + sums->row - within);
        if (sums->parts == 1 && sums->group_bits == 0) {
            double *sum_xx = sums->sum_xx + within, *sum_dd = sums->sum_dd + within;
            for (int64_t i = 0; i < end - at; i++) sum_xx[i] += xx[at + i];
            for (int64_t i = 0; i < end - at; i++) sum_dd[i] += dd[at + i];
            continue;
        }
        for (int64_t i = 0; i < end - at; i++) {
            int64_t group = (sums->first + (within + i) / sums->parts) >> sums->group_bits;
            sums->sum_xx[group] += xx[at + i];
            sums->sum_dd[group] += dd[at + i];
        }
    }
    for (int64_t i = 0; i < size; i++) {
        uint64_t bits;
        memcpy(&bits, relative + i, 8);
        tables[i % TABLES][bits >> 52]++;
    }
    sums->counts[0] -= zeros;
    return true;
}

/* Add the elements start <= i < stop, up to the first block with a value that is not ordinary; return its first one. */
static int64_t FOR(sum_errors, double)(
    const Operand *x, const Operand *y, int64_t start, int64_t stop, double lowest_x, double lowest_y,
    const ErrorSums *sums
) {
    double values_x[BLOCK], values_y[BLOCK];
    int64_t exact[BLOCK];
    uint32_t tables[TABLES][FIRST];
    Cursor cursor_x, cursor_y;
    memset(tables, 0, sizeof tables);
    seek(&cursor_x, &x->walk, start);
    seek(&cursor_y, &y->walk, start);
    int64_t position = start;
    for (int64_t size; position < stop; position += size) {
        size = smaller(BLOCK, stop - position);
        const char *of_x = FOR(next_values, double)(x, &cursor_x, size, values_x, exact);
        const char *of_y = FOR(next_values, double)(y, &cursor_y, size, values_y, exact);
        if (!FOR(add_errors, double)(of_x, of_y, size, position, lowest_x, lowest_y, sums, tables)) break;
    }
    for (int64_t table = 0; table < TABLES; table++)
        for (int64_t i = 0; i < FIRST; i++) sums->counts[i] += tables[table][i];
    return position;
}
