/* Vectors of REAL, and what of their arithmetic C has no operator for. Included for each kind of CPU and each REAL.

   Counts are of lanes, in whatever form the CPU counts fastest. Minima and maxima are b where a is NaN. */

typedef REAL NAME(Reals) __attribute__((vector_size(VECTOR_BYTES)));
typedef BITS NAME(Bits) __attribute__((vector_size(VECTOR_BYTES)));
typedef UNSIGNED NAME(Unsigned) __attribute__((vector_size(VECTOR_BYTES)));

/* As many REAL as a vector of float64 holds, and that vector. */
typedef REAL NAME(Narrow) __attribute__((vector_size(VECTOR_BYTES / 8 * sizeof(REAL))));
typedef double NAME(Wide) __attribute__((vector_size(VECTOR_BYTES)));

/* Lane by lane, a where the mask is set, else b. */
INLINE NAME(Bits) NAME(select)(NAME(Bits) mask, NAME(Bits) a, NAME(Bits) b) { return (mask & a) | (~mask & b); }

#if VECTOR_BYTES == 64
typedef int64_t NAME(Count);
#define REALS(OPERATION) JOIN(_mm512_##OPERATION##_, REAL_SUFFIX)
#define INTEGERS(OPERATION) JOIN(_mm512_##OPERATION##_epi, REAL_BITS)
#define COMPARE(A, B, HOW) JOIN(REALS(cmp), _mask)(A, B, HOW)

INLINE NAME(Reals) NAME(min)(NAME(Reals) a, NAME(Reals) b) { return REALS(min)(a, b); }
INLINE NAME(Reals) NAME(max)(NAME(Reals) a, NAME(Reals) b) { return REALS(max)(a, b); }
INLINE void NAME(count_greater)(NAME(Count) *count, NAME(Reals) a, NAME(Reals) b) {
    *count += __builtin_popcount(COMPARE(a, b, _CMP_GT_OQ));
}
INLINE void NAME(count_same)(NAME(Count) *count, NAME(Bits) a, NAME(Bits) b) {
    *count += __builtin_popcount(JOIN(INTEGERS(cmpeq), _mask)((__m512i)a, (__m512i)b));
}
INLINE int64_t NAME(counted)(NAME(Count) count) { return count; }
INLINE NAME(Reals) NAME(zero_where_zero)(NAME(Reals) a, NAME(Reals) b) {
    return REALS(maskz_mov)(COMPARE(b, (NAME(Reals)){0}, _CMP_NEQ_UQ), a);
}
INLINE NAME(Bits) NAME(ordinal)(NAME(Bits) a) {
    NAME(Bits) lowest = LOWEST - (NAME(Bits)){0};
    return (NAME(Bits))INTEGERS(mask_sub)(
        (__m512i)a, JOIN(JOIN(_mm512_movepi, REAL_BITS), _mask)((__m512i)a), (__m512i)lowest, (__m512i)a
    );
}
INLINE NAME(Unsigned) NAME(distance)(NAME(Bits) a, NAME(Bits) b) {
    return (NAME(Unsigned))INTEGERS(max)((__m512i)a, (__m512i)b) - (NAME(Unsigned))INTEGERS(min)((__m512i)a, (__m512i)b);
}
INLINE NAME(Unsigned) NAME(larger)(NAME(Unsigned) a, NAME(Unsigned) b) {
    return (NAME(Unsigned))JOIN(_mm512_max_epu, REAL_BITS)((__m512i)a, (__m512i)b);
}
#undef REALS
#undef INTEGERS
#undef COMPARE
#else
#if VECTOR_BYTES == 32
typedef int64_t NAME(Count);
#define REALS(OPERATION) JOIN(_mm256_##OPERATION##_, REAL_SUFFIX)

INLINE NAME(Reals) NAME(min)(NAME(Reals) a, NAME(Reals) b) { return REALS(min)(a, b); }
INLINE NAME(Reals) NAME(max)(NAME(Reals) a, NAME(Reals) b) { return REALS(max)(a, b); }
INLINE void NAME(count_greater)(NAME(Count) *count, NAME(Reals) a, NAME(Reals) b) {
    *count += __builtin_popcount((unsigned)REALS(movemask)((NAME(Reals))(a > b)));
}
INLINE void NAME(count_same)(NAME(Count) *count, NAME(Bits) a, NAME(Bits) b) {
    *count += __builtin_popcount((unsigned)REALS(movemask)((NAME(Reals))(a == b)));
}
INLINE int64_t NAME(counted)(NAME(Count) count) { return count; }
#undef REALS
#else
typedef NAME(Bits) NAME(Count);

INLINE NAME(Reals) NAME(min)(NAME(Reals) a, NAME(Reals) b) {
    return (NAME(Reals))NAME(select)(a < b, (NAME(Bits))a, (NAME(Bits))b);
}
INLINE NAME(Reals) NAME(max)(NAME(Reals) a, NAME(Reals) b) {
    return (NAME(Reals))NAME(select)(a > b, (NAME(Bits))a, (NAME(Bits))b);
}
INLINE void NAME(count_greater)(NAME(Count) *count, NAME(Reals) a, NAME(Reals) b) { *count -= a > b; }
INLINE void NAME(count_same)(NAME(Count) *count, NAME(Bits) a, NAME(Bits) b) { *count -= a == b; }
INLINE int64_t NAME(counted)(NAME(Count) count) {
    int64_t sum = 0;
    for (int64_t lane = 0; lane < PER_VECTOR; lane++) sum += count[lane];
    return sum;
}
#endif

INLINE NAME(Reals) NAME(zero_where_zero)(NAME(Reals) a, NAME(Reals) b) {
    return (NAME(Reals))((NAME(Bits))a & (b != 0));
}
#if VECTOR_BYTES == 32 && REAL_BITS == 32
INLINE NAME(Bits) NAME(ordinal)(NAME(Bits) a) {
    return (NAME(Bits))_mm256_sign_epi32((__m256i)(a & ~LOWEST), (__m256i)a);
}
INLINE NAME(Unsigned) NAME(distance)(NAME(Bits) a, NAME(Bits) b) {
    __m256i high = _mm256_max_epi32((__m256i)a, (__m256i)b), low = _mm256_min_epi32((__m256i)a, (__m256i)b);
    return (NAME(Unsigned))_mm256_sub_epi32(high, low);
}
INLINE NAME(Unsigned) NAME(larger)(NAME(Unsigned) a, NAME(Unsigned) b) {
    return (NAME(Unsigned))_mm256_max_epu32((__m256i)a, (__m256i)b);
}
#else
INLINE NAME(Bits) NAME(ordinal)(NAME(Bits) a) {
    NAME(Bits) sign = a < 0;
    return ((a & ~LOWEST) ^ sign) - sign;
}
INLINE NAME(Unsigned) NAME(distance)(NAME(Bits) a, NAME(Bits) b) {
    NAME(Unsigned) difference = (NAME(Unsigned))a - (NAME(Unsigned))b, turned = (NAME(Unsigned))(a < b);
    return (difference ^ turned) - turned;
}
INLINE NAME(Unsigned) NAME(larger)(NAME(Unsigned) a, NAME(Unsigned) b) {
    return (NAME(Unsigned))NAME(select)((NAME(Bits))(a > b), (NAME(Bits))a, (NAME(Bits))b);
}
#endif
#endif
