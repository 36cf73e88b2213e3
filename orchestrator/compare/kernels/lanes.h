/* Vectors of REAL, and what of their arithmetic C has no operator for. Included for each kind of CPU and each REAL.

   Counts are of lanes, in whatever form the CPU counts fastest. Minima and maxima are b where a is NaN. */

typedef REAL NAME(Reals) __attribute__((vector_size(VECTOR_BYTES)));
typedef BITS NAME(Bits) __attribute__((vector_size(VECTOR_BYTES)));
typedef UNSIGNED NAME(Unsigned) __attribute__((vector_size(VECTOR_BYTES)));

#if VECTOR_BYTES == 64 && REAL_BITS == 32
typedef int64_t NAME(Count);
typedef __m512i NAME(Integers);

INLINE NAME(Reals) NAME(min)(NAME(Reals) a, NAME(Reals) b) { return (NAME(Reals))_mm512_min_ps((__m512)a, (__m512)b); }
INLINE NAME(Reals) NAME(max)(NAME(Reals) a, NAME(Reals) b) { return (NAME(Reals))_mm512_max_ps((__m512)a, (__m512)b); }
INLINE void NAME(count_greater)(NAME(Count) *count, NAME(Reals) a, NAME(Reals) b) {
    *count += __builtin_popcount(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ));
}
INLINE void NAME(count_same)(NAME(Count) *count, NAME(Bits) a, NAME(Bits) b) {
    *count += __builtin_popcount(_mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b));
}
INLINE int64_t NAME(counted)(NAME(Count) count) { return count; }
INLINE NAME(Reals) NAME(zero_where_zero)(NAME(Reals) a, NAME(Reals) b) {
    __mmask16 kept = _mm512_cmp_ps_mask((__m512)b, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    return (NAME(Reals))_mm512_maskz_mov_ps(kept, (__m512)a);
}
INLINE NAME(Bits) NAME(ordinal)(NAME(Bits) a) {
    __mmask16 negative = _mm512_movepi32_mask((__m512i)a);
    return (NAME(Bits))_mm512_mask_sub_epi32((__m512i)a, negative, _mm512_set1_epi32(LOWEST), (__m512i)a);
}
INLINE NAME(Unsigned) NAME(distance)(NAME(Bits) a, NAME(Bits) b) {
    __m512i high = _mm512_max_epi32((__m512i)a, (__m512i)b), low = _mm512_min_epi32((__m512i)a, (__m512i)b);
    return (NAME(Unsigned))_mm512_sub_epi32(high, low);
}
INLINE NAME(Unsigned) NAME(larger)(NAME(Unsigned) a, NAME(Unsigned) b) {
    return (NAME(Unsigned))_mm512_max_epu32((__m512i)a, (__m512i)b);
}
#elif VECTOR_BYTES == 32 && REAL_BITS == 32
typedef int64_t NAME(Count);

INLINE NAME(Reals) NAME(min)(NAME(Reals) a, NAME(Reals) b) { return (NAME(Reals))_mm256_min_ps((__m256)a, (__m256)b); }
INLINE NAME(Reals) NAME(max)(NAME(Reals) a, NAME(Reals) b) { return (NAME(Reals))_mm256_max_ps((__m256)a, (__m256)b); }
INLINE void NAME(count_greater)(NAME(Count) *count, NAME(Reals) a, NAME(Reals) b) {
    *count += __builtin_popcount((unsigned)_mm256_movemask_ps((__m256)(a > b)));
}
INLINE void NAME(count_same)(NAME(Count) *count, NAME(Bits) a, NAME(Bits) b) {
    *count += __builtin_popcount((unsigned)_mm256_movemask_ps((__m256)(a == b)));
}
INLINE int64_t NAME(counted)(NAME(Count) count) { return count; }
INLINE NAME(Reals) NAME(zero_where_zero)(NAME(Reals) a, NAME(Reals) b) {
    return (NAME(Reals))((NAME(Bits))a & (b != 0));
}
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
typedef NAME(Bits) NAME(Count);

INLINE NAME(Bits) NAME(select)(NAME(Bits) mask, NAME(Bits) a, NAME(Bits) b) { return (mask & a) | (~mask & b); }
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
    for (size_t lane = 0; lane < PER_VECTOR; lane++) sum += count[lane];
    return sum;
}
INLINE NAME(Reals) NAME(zero_where_zero)(NAME(Reals) a, NAME(Reals) b) {
    return (NAME(Reals))((NAME(Bits))a & (b != 0));
}
INLINE NAME(Bits) NAME(ordinal)(NAME(Bits) a) {
    NAME(Bits) sign = a >> (REAL_BITS - 1);
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
