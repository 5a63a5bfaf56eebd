/* Vectors of VW floats: loads, stores, tails, sums, transposition, exp, tanh.
 * The includer (cext/isa/) defines VW (4, 8 or 16) inside its target pragma; used by layers, losses and updates only.
 * Nothing here is global or exported: every instruction set gets its own static copy. */
#ifndef CHAOS_SIMD_H
#define CHAOS_SIMD_H

typedef float vec __attribute__((vector_size(4 * VW), may_alias));
typedef float vec_u __attribute__((vector_size(4 * VW), aligned(4), may_alias));
/* Narrow vectors: up to 8 floats. AVX-512F without its extension VL has 16 registers for them, not 32. */
enum { NARROW = VW == 16 ? 8 : VW };
typedef float narrow_8 __attribute__((vector_size(4 * NARROW), may_alias));
typedef float narrow_8_u __attribute__((vector_size(4 * NARROW), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * VW), may_alias));
typedef int32_t ivec_u __attribute__((vector_size(4 * VW), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline, unused))
#define KERNEL static __attribute__((unused))

INLINE vec vload(const float *p) { return *(const vec_u *)p; }
INLINE void vstore(float *p, vec v) { *(vec_u *)p = v; }
INLINE ivec iload(const int32_t *p) { return *(const ivec_u *)p; }
INLINE void istore(int32_t *p, ivec v) { *(ivec_u *)p = v; }
INLINE vec vset(float x) { return x - (vec){0}; }
INLINE ivec iset(int32_t x) { return x - (ivec){0}; }

/* Store the first n lanes, 0 < n <= VW. A loop over lanes would become a call of memcpy, which is slower than several stores. */
INLINE void vstore_n(float *p, vec v, int n)
{
#if VW == 16
    _mm512_mask_storeu_ps(p, (__mmask16)(0xffffu >> (16 - n)), (__m512)v);
#elif VW == 8
    if (n == VW) {
        vstore(p, v);
        return;
    }
    __m128 part = _mm256_castps256_ps128((__m256)v);
    if (n & 4) {
        _mm_storeu_ps(p, part);
        part = _mm256_extractf128_ps((__m256)v, 1);
        p += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, part);
        part = _mm_movehl_ps(part, part);
        p += 2;
    }
    if (n & 1)
        _mm_store_ss(p, part);
#else
    if (n == VW)
        vstore(p, v);
    else
        for (int i = 0; i < n; i++)
            p[i] = v[i];
#endif
}

/* The first n lanes, the others 0. */
INLINE vec vload_n(const float *p, int n)
{
#if VW == 16
    return (vec)_mm512_maskz_loadu_ps((__mmask16)(0xffffu >> (16 - n)), p);
#elif VW == 8
    return (vec)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
#else
    float lane[VW] = {0};
    for (int i = 0; i < n; i++)
        lane[i] = p[i];
    return vload(lane);
#endif
}

/* mask lanes are 0 or -1 */
INLINE vec vselect(ivec mask, vec a, vec b)
{
#if VW == 8 /* one instruction, where the compiler makes three of what is below */
    return (vec)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#else
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
#endif
}
INLINE ivec iselect(ivec mask, ivec a, ivec b) { return (ivec)vselect(mask, (vec)a, (vec)b); }
/* b where one of the two is NaN, as the instruction has it */
#if VW == 16
INLINE vec vmax(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec vmin(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
#elif VW == 8
INLINE vec vmax(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vec vmin(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
#elif defined(__x86_64__)
INLINE vec vmax(vec a, vec b) { return (vec)_mm_max_ps((__m128)a, (__m128)b); }
INLINE vec vmin(vec a, vec b) { return (vec)_mm_min_ps((__m128)a, (__m128)b); }
#else
INLINE vec vmax(vec a, vec b) { return vselect(a > b, a, b); }
INLINE vec vmin(vec a, vec b) { return vselect(a < b, a, b); }
#endif

INLINE vec vsqrt(vec x)
{
#if VW == 16
    return (vec)_mm512_sqrt_ps((__m512)x);
#elif VW == 8
    return (vec)_mm256_sqrt_ps((__m256)x);
#elif defined(__x86_64__)
    return (vec)_mm_sqrt_ps((__m128)x);
#else
    for (int i = 0; i < VW; i++)
        x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}

/* The sum of all lanes, of halves, quarters and so on. */
INLINE float vtotal(vec v)
{
#if VW == 16
    return _mm512_reduce_add_ps((__m512)v);
#else
#if VW == 8
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
#define QUARTERS 2, 3, 0, 1, 6, 7, 4, 5
#else
#define QUARTERS 2, 3, 0, 1
#endif
    v += __builtin_shufflevector(v, v, QUARTERS);
#undef QUARTERS
    return v[0] + v[1];
#endif
}

/* Packs the lanes of from[] that `keep` names among the first n, and first + their numbers; returns how many. May write VW
 * lanes. */
#if VW == 16
INLINE int vpack(__mmask16 keep, const float *from, int n, int first, float *value, int32_t *number)
{
    const __mmask16 mask = keep & (__mmask16)(0xffffu >> (16 - n));
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512 kept = _mm512_maskz_compress_ps(mask, (__m512)vload(from));
    const __m512i numbers = _mm512_maskz_compress_epi32(mask, _mm512_add_epi32(lanes, _mm512_set1_epi32(first)));
    const int found = __builtin_popcount(mask);
    if (found > 8) {
        _mm512_storeu_ps(value, kept);
        _mm512_storeu_si512(number, numbers);
    } else { /* half a vector seldom crosses a cache line */
        _mm256_storeu_ps(value, _mm512_castps512_ps256(kept));
        _mm256_storeu_si256((__m256i *)number, _mm512_castsi512_si256(numbers));
    }
    return found;
}
#else
INLINE int vpack(ivec keep, const float *from, int n, int first, float *value, int32_t *number)
{
    int32_t kept[VW];
    istore(kept, keep);
    int found = 0;
    for (int i = 0; i < n; i++) { /* without a branch that cannot be foreseen */
        value[found] = from[i];
        number[found] = first + i;
        found -= kept[i];
    }
    return found;
}
#endif

/* The lanes that are not zero. */
INLINE int vpack_nonzero(const float *from, int n, int first, float *value, int32_t *number)
{
#if VW == 16
    return vpack(_mm512_cmp_ps_mask((__m512)vload(from), _mm512_setzero_ps(), _CMP_NEQ_UQ), from, n, first, value, number);
#else
    return vpack(vload(from) != 0.f, from, n, first, value, number);
#endif
}

/* The lanes in which which[] is `wanted`. */
INLINE int vpack_equal(const int32_t *which, int wanted, const float *from, int n, int first, float *value, int32_t *number)
{
#if VW == 16
    return vpack(_mm512_cmpeq_epi32_mask(_mm512_loadu_si512(which), _mm512_set1_epi32(wanted)), from, n, first, value,
                 number);
#else
    return vpack(iload(which) == wanted, from, n, first, value, number);
#endif
}

#if VW < 16
#if VW == 8
#define ZIP_LO 0, 8, 1, 9, 2, 10, 3, 11
#define ZIP_HI 4, 12, 5, 13, 6, 14, 7, 15
#else
#define ZIP_LO 0, 4, 1, 5
#define ZIP_HI 2, 6, 3, 7
#endif
INLINE vec vzip_lo(vec a, vec b) { return __builtin_shufflevector(a, b, ZIP_LO); }
INLINE vec vzip_hi(vec a, vec b) { return __builtin_shufflevector(a, b, ZIP_HI); }
#endif

/* m[c] = float c of all rows, for c < 4. Each lane of 128 bits is loaded where it belongs, so that no instruction has to cross
 * lanes. */
#if VW == 16
#define IN_LANES(a, b, c, d)                                                                                                \
    a, b, c, d, a + 4, b + 4, c + 4, d + 4, a + 8, b + 8, c + 8, d + 8, a + 12, b + 12, c + 12, d + 12
#elif VW == 8
#define IN_LANES(a, b, c, d) a, b, c, d, a + 4, b + 4, c + 4, d + 4
#else
#define IN_LANES(a, b, c, d) a, b, c, d
#endif
INLINE void vcolumns_of(const float *const row[VW], vec m[4])
{
    vec q[4], t[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
#if VW == 16
        const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row[i])), _mm_loadu_ps(row[i + 4]), 1);
        const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row[i + 8])), _mm_loadu_ps(row[i + 12]),
                                                 1);
        q[i] = (vec)_mm512_insertf64x4(_mm512_castps_pd(_mm512_castps256_ps512(low)), _mm256_castps_pd(high), 1);
#elif VW == 8
        q[i] = (vec)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row[i])), _mm_loadu_ps(row[i + 4]), 1);
#else
        q[i] = vload(row[i]);
#endif
    }
#pragma GCC unroll 2
    for (int i = 0; i < 4; i += 2) {
        t[i] = __builtin_shufflevector(q[i], q[i + 1], IN_LANES(0, VW, 1, VW + 1));
        t[i + 1] = __builtin_shufflevector(q[i], q[i + 1], IN_LANES(2, VW + 2, 3, VW + 3));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        m[2 * i] = __builtin_shufflevector(t[i], t[i + 2], IN_LANES(0, 1, VW, VW + 1));
        m[2 * i + 1] = __builtin_shufflevector(t[i], t[i + 2], IN_LANES(2, 3, VW + 2, VW + 3));
    }
}

/* Of `rows` <= VW rows, `step` floats apart; lanes past the last row repeat it. */
INLINE void vcolumns(const float *from, size_t step, int rows, vec m[4])
{
    const float *row[VW];
#pragma GCC unroll 16
    for (int i = 0; i < VW; i++)
        row[i] = from + (size_t)(i < rows ? i : rows - 1) * step;
    vcolumns_of(row, m);
}

/* Lane i of the result = sum of the lanes of m[i]; m is destroyed. */
INLINE vec vsum_rows(vec *m)
{
#if VW == 16
    __m512 quad[4]; /* shuffles within 128 bits as long as they do: the others take longer */
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
        const __m512 a = (__m512)m[4 * q], b = (__m512)m[4 * q + 1], c = (__m512)m[4 * q + 2], d = (__m512)m[4 * q + 3];
        const __m512d ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
        const __m512d cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
        quad[q] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
    }
    const __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(quad[0], quad[1], 0x44),
                                     _mm512_shuffle_f32x4(quad[0], quad[1], 0xee));
    const __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(quad[2], quad[3], 0x44),
                                      _mm512_shuffle_f32x4(quad[2], quad[3], 0xee));
    return (vec)_mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
#else
#pragma GCC unroll 4
    for (int n = VW / 2; n >= 1; n /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            m[i] = vzip_lo(m[i], m[i + n]) + vzip_hi(m[i], m[i + n]);
    return m[0];
#endif
}

/* a / b for finite a and 2^-126 < |b| < 2^126. A quotient of 512 bits takes the time of some twenty other instructions: there it
 * is a product with 1 / b to 14 bits, corrected by what is left of a, which is off by 2^-28 and the last rounding. */
INLINE vec vquotient(vec a, vec b)
{
#if VW == 16
    const vec r = (vec)_mm512_rcp14_ps((__m512)b), q = a * r;
    return q + r * (a - b * q);
#else
    return a / b;
#endif
}

/* d^-1/2 for normal d > 0; likewise, with a step of Newton's, off by one unit in the last place. */
INLINE vec vrsqrt(vec d)
{
#if VW == 16
    const vec r = (vec)_mm512_rsqrt14_ps((__m512)d);
    return r + (0.5f * r) * (1.f - (d * r) * r);
#else
    return 1.f / vsqrt(d);
#endif
}

/* 2^k and exp(f) - 1, where x = k ln2 + f with |f| <= ln2/2, for |x| <= 87: by f + f^2 times a polynomial that is fitted for the
 * least error relative to exp(f) - 1, 2^-25.7, and 2^-26.4 for |f| < 1/4. */
INLINE vec vexp_parts(vec x, vec *power)
{
    const vec round = vset(12583039.f); /* 1.5 * 2^23 + 127: adding it leaves 127 + the nearest integer in the low bits */
    const vec shifted = x * 1.44269504f + round;
    const vec k = shifted - round;
    const vec f = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    vec p = vset(1.3894341e-3f);
    p = p * f + 8.36458057e-3f;
    p = p * f + 4.1666884e-2f;
    p = p * f + 0.166665629f;
    p = p * f + 0.5f;
    p = p * (f * f) + f;
    *power = (vec)((ivec)shifted << 23);
    return p;
}

/* exp(x) - 1 for |x| <= 87 */
INLINE vec vexpm1(vec x)
{
    vec power;
    const vec p = vexp_parts(x, &power);
    return power * p + (power - 1.f);
}

/* exp(x); that of -87 or 87 beyond; NaN stays NaN */
INLINE vec vexp(vec x)
{
    vec power;
    const vec p = vexp_parts(vmin(vset(87), vmax(vset(-87), x)), &power);
    return power * p + power;
}

/* tanh |x| = e / (e + 2), e = exp(2|x|) - 1: no cancellation near 0, and an error of e is not magnified; 1 to the last bit
 * beyond 9.02. Off by less than 2.5 units in the last place (tests/test_layers.py looks at a million points). */
INLINE vec vtanh(vec x)
{
    const ivec sign = (ivec)x & iset(INT32_MIN);
    const vec size = vmin(vset(9.1f), (vec)((ivec)x ^ sign)); /* a NaN stays one */
    const vec e = vexpm1(size + size);
    return (vec)((ivec)vquotient(e, e + 2.f) | sign);
}

/* 1 / (1 + exp(-x)); off by at most 3 units in the last place for |x| <= 87, below that 1.6e-38; NaN stays NaN. */
INLINE vec vsigmoid(vec x)
{
    vec power;
    const vec p = vexp_parts(-vmin(vset(87), vmax(vset(-87), x)), &power);
    return vquotient(vset(1), power * p + (power + 1.f));
}

#endif
