/* The products of bf16.h by AMX: tiles of 16 rows of 64 bytes, two by two of sums in registers. Alone in this file is what no
 * other instruction set has; nothing here runs before bf16_amx has found that it may. */
#include "bf16.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(CHAOS_NO_AMX)
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16"))),             \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE __m512i pair_up(const float *even, const float *odd, __mmask16 live)
{
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                                21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512 a = _mm512_maskz_loadu_ps(live, even), b = _mm512_maskz_loadu_ps(live, odd);
    return _mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

INLINE __mmask16 first_of(size_t n) { return n < 16 ? (__mmask16)(0xffffu >> (16 - n)) : 0xffff; }

static void amx_round(size_t n, const float *from, uint16_t *to)
{
    size_t i = 0;
    for (; i + 32 <= n; i += 32)
        _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i)));
    if (i < n) {
        const size_t left = n - i;
        const __m512 low = _mm512_maskz_loadu_ps(first_of(left), from + i);
        const __m512 high = left > 16 ? _mm512_maskz_loadu_ps(first_of(left - 16), from + i + 16) : _mm512_setzero_ps();
        _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

static void amx_pairs(const float *const row[BF16_DEPTH], size_t columns, uint16_t *to, size_t panel)
{
    static const float none[16];
    for (int q = 0; q < 16; q++, to += 32) { /* rows as they lie: several streams of stores disturb less than of loads */
        const float *even = row[2 * q] ? row[2 * q] : none, *odd = row[2 * q + 1] ? row[2 * q + 1] : none;
        const size_t even_step = even == none ? 0 : 16, odd_step = odd == none ? 0 : 16;
        uint16_t *at = to;
        for (size_t n = 0; n < columns; n += 16, even += even_step, odd += odd_step, at += panel)
            _mm512_storeu_si512(at, pair_up(even, odd, first_of(columns - n)));
    }
}

/* Rows become columns, of 16 times 16 pairs. */
INLINE void turn(__m512i r[16])
{
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* r[i + j]: column j of four rows in each lane of 128 bits */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512i a = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88), b = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88),
                      d = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
        t[j] = _mm512_shuffle_i32x4(a, c, 0x88);
        t[j + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
        t[j + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[j + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}

static void amx_turned(const float *const row[BF16_DEPTH], size_t columns, uint16_t *to, size_t step)
{
    static const float none[16];
    const float *from[BF16_DEPTH];
    ptrdiff_t moves[BF16_DEPTH];
    for (int i = 0; i < BF16_DEPTH; i++)
        from[i] = row[i] ? row[i] : none, moves[i] = row[i] ? 1 : 0;
    for (size_t n = 0; n < columns; n += 16, to += 16 * step) {
        const size_t left = columns - n;
        const __mmask16 live = first_of(left);
        __m512i r[16];
#pragma GCC unroll 16
        for (int q = 0; q < 16; q++)
            r[q] = pair_up(from[2 * q] + (ptrdiff_t)n * moves[2 * q], from[2 * q + 1] + (ptrdiff_t)n * moves[2 * q + 1],
                           live);
        turn(r);
#pragma GCC unroll 16
        for (size_t c = 0; c < 16; c++)
            if (c < left)
                _mm512_storeu_si512(to + c * step, r[c]);
    }
}

static void amx_turned_pairs(const float *const row[BF16_LINES], size_t terms, uint16_t *to)
{
    for (size_t k = 0; k < terms; k += 32, to += BF16_TILE) {
        const size_t left = terms - k;
        const __mmask16 low = first_of(left), high = left > 16 ? first_of(left - 16) : 0;
        __m512i r[16];
#pragma GCC unroll 16
        for (int j = 0; j < 16; j++)
            r[j] = row[j] ? (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, row[j] + k + 16),
                                                         _mm512_maskz_loadu_ps(low, row[j] + k))
                          : _mm512_setzero_si512();
        turn(r);
#pragma GCC unroll 16
        for (int q = 0; q < 16; q++)
            _mm512_storeu_si512(to + 32 * q, r[q]);
    }
}

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_shapes;

INLINE void tiles_begin(void)
{
    tile_shapes all;
    memset(&all, 0, sizeof all);
    all.palette = 1;
    for (int i = 0; i < 8; i++)
        all.bytes[i] = 64, all.rows[i] = 16;
    _tile_loadconfig(&all);
}

/* 16 rows of a factor, and 16 rows of sums: where the first is, and floats or numbers from row to row, 0: not even. */
typedef struct {
    const uint16_t *a;
    ptrdiff_t step; /* bytes */
    int gathered;
    float *to;
    int rows;
    int even;
} strip;

/* Sums of a tile that is not whole go through here. */
INLINE void sums_in(const bf16_product *p, int m, int n, int live, float *sum)
{
    memset(sum, 0, 256 * sizeof(float));
    for (int i = 0; i < BF16_LINES && m + i < p->rows; i++)
        _mm512_storeu_ps(sum + 16 * i,
                         _mm512_maskz_loadu_ps(first_of((size_t)live),
                                               p->to + (m + i) / p->wide * p->to_row + (m + i) % p->wide * p->to_step + n));
}

INLINE void sums_out(const bf16_product *p, int m, int n, int live, const float *sum)
{
    for (int i = 0; i < BF16_LINES && m + i < p->rows; i++)
        _mm512_mask_storeu_ps(p->to + (m + i) / p->wide * p->to_row + (m + i) % p->wide * p->to_step + n,
                              first_of((size_t)live), _mm512_loadu_ps(sum + 16 * i));
}

#define SUMS_BEGIN(tile, s, c)                                                                                              \
    if (p->adds && (s).even && live[c] == BF16_LINES)                                                                       \
        _tile_loadd(tile, (s).to + n + 16 * c, (size_t)p->to_step * sizeof(float));                                         \
    else if (p->adds) {                                                                                                     \
        sums_in(p, (int)((s).rows), n + 16 * c, live[c], sum);                                                              \
        _tile_loadd(tile, sum, 64);                                                                                         \
    } else if (p->from)                                                                                                     \
        _tile_loadd(tile, p->from + n + 16 * c, 0);                                                                         \
    else                                                                                                                    \
        _tile_zero(tile);
#define SUMS_END(tile, s, c)                                                                                                \
    if ((s).even && live[c] == BF16_LINES)                                                                                  \
        _tile_stored(tile, (s).to + n + 16 * c, (size_t)p->to_step * sizeof(float));                                        \
    else {                                                                                                                  \
        _tile_stored(tile, sum, 64);                                                                                        \
        sums_out(p, (int)((s).rows), n + 16 * c, live[c], sum);                                                             \
    }

/* M x N tiles of sums. */
INLINE void tiles(const int M, const int N, const bf16_product *p, const strip *s, int n)
{
    _Alignas(64) float sum[256];
    const uint16_t *b = p->b + (size_t)(n / BF16_LINES) * (size_t)p->depth * BF16_TILE;
    const size_t panel = (size_t)p->depth * BF16_TILE;
    const int live[2] = {p->columns - n < 16 ? p->columns - n : 16, p->columns - n < 32 ? p->columns - n - 16 : 16};
    SUMS_BEGIN(0, s[0], 0)
    if (N > 1) {
        SUMS_BEGIN(1, s[0], 1)
    }
    if (M > 1) {
        SUMS_BEGIN(2, s[1], 0)
        if (N > 1) {
            SUMS_BEGIN(3, s[1], 1)
        }
    }
    for (int k = 0; k < p->depth; k++, b += BF16_TILE) {
        _tile_loadd(4, s[0].a + (s[0].gathered ? (ptrdiff_t)k * BF16_TILE : p->run[k]), (size_t)s[0].step);
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (N > 1) {
            _tile_loadd(7, b + panel, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (M > 1) {
            _tile_loadd(5, s[1].a + (s[1].gathered ? (ptrdiff_t)k * BF16_TILE : p->run[k]), (size_t)s[1].step);
            _tile_dpbf16ps(2, 5, 6);
            if (N > 1)
                _tile_dpbf16ps(3, 5, 7);
        }
    }
    SUMS_END(0, s[0], 0)
    if (N > 1) {
        SUMS_END(1, s[0], 1)
    }
    if (M > 1) {
        SUMS_END(2, s[1], 0)
        if (N > 1) {
            SUMS_END(3, s[1], 1)
        }
    }
}

/* Rows m to m + 15; where they are not even, or not there, a copy of all their blocks. */
INLINE strip strip_of(const bf16_product *p, int m, uint16_t *room)
{
    const int whole = m + BF16_LINES <= p->rows, one = m / p->wide == (m + BF16_LINES - 1) / p->wide;
    strip s = {.a = p->a + m / p->wide * p->a_row + m % p->wide * p->a_step,
               .step = p->a_step * (ptrdiff_t)sizeof(uint16_t),
               .to = p->to + m / p->wide * p->to_row + m % p->wide * p->to_step,
               .rows = m};
    s.even = whole && (one || p->to_row == p->wide * p->to_step);
    if (whole && (one || p->a_row == p->wide * p->a_step))
        return s;
    const uint16_t *row[BF16_LINES];
    int there = 0;
    for (; there < BF16_LINES && m + there < p->rows; there++)
        row[there] = p->a + (m + there) / p->wide * p->a_row + (m + there) % p->wide * p->a_step;
    for (int k = 0; k < p->depth; k++) {
        int i = 0;
        for (; i < there; i++)
            _mm512_store_si512(room + (size_t)k * BF16_TILE + 32 * i, _mm512_loadu_si512(row[i] + p->run[k]));
        for (; i < BF16_LINES; i++)
            _mm512_store_si512(room + (size_t)k * BF16_TILE + 32 * i, _mm512_setzero_si512());
    }
    s.a = room, s.step = 64, s.gathered = 1;
    return s;
}

static void amx_product(const bf16_product *p)
{
    tiles_begin();
    for (int m = 0; m < p->rows; m += 2 * BF16_LINES) {
        const int two = p->rows - m > BF16_LINES;
        strip s[2] = {{0}};
        s[0] = strip_of(p, m, p->room);
        if (two)
            s[1] = strip_of(p, m + BF16_LINES, p->room + (size_t)p->depth * BF16_TILE);
        for (int n = 0; n < p->columns; n += 2 * BF16_LINES) {
            const int wide = p->columns - n > BF16_LINES;
            if (two && wide)
                tiles(2, 2, p, s, n);
            else if (two)
                tiles(2, 1, p, s, n);
            else if (wide)
                tiles(1, 2, p, s, n);
            else
                tiles(1, 1, p, s, n);
        }
    }
    _tile_release();
}

static const bf16_unit amx = {"amx", amx_round, amx_pairs, amx_turned, amx_turned_pairs, amx_product};

static double full_speed(int dots, long rounds, long *flops)
{
    enum { CHAINS = 16 };
    struct timespec from, to;
    *flops = dots ? CHAINS * 16 * 4L : 4 * 16 * 16 * 32 * 2L;
    __m512 acc[CHAINS];
    const __m512i one = _mm512_set1_epi32(0x3f803f80);
#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_setzero_ps();
    tiles_begin();
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long r = 0; r < rounds; r++)
        if (dots) {
#pragma GCC unroll 16
            for (int i = 0; i < CHAINS; i++)
                __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(acc[i]) : "v"(one));
        } else {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    clock_gettime(CLOCK_MONOTONIC, &to);
    _tile_release();
    return (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

double bf16_seconds(int dots, long rounds, long *flops) { return full_speed(dots, rounds, flops); }

/* Of the architecture's leaf 7. */
enum { EDX_BF16 = 1 << 22, EDX_TILE = 1 << 24, EAX1_AVX512_BF16 = 1 << 5 };
enum { TILE_DATA = 18, ASK_FOR = 0x1023 }; /* of arch_prctl */

static const char *missing;

static const char *look(void)
{
    unsigned a, b, c, d, a1, b1, c1, d1;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl"))
        return "the processor has no AVX-512 with its parts BW and VL";
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) || !(a1 & EAX1_AVX512_BF16))
        return "the processor has neither AVX512_BF16 nor AMX";
    if (!(d & EDX_BF16) || !(d & EDX_TILE))
        return "the processor has AVX512_BF16 alone, not AMX_BF16";
    if (syscall(SYS_arch_prctl, ASK_FOR, TILE_DATA))
        return "the processor has AMX_BF16, but the operating system does not let this process use it";
    return "";
}

const char *bf16_amx_missing(void)
{
    if (!missing)
        missing = look();
    return missing;
}

const bf16_unit *bf16_amx(void) { return *bf16_amx_missing() ? NULL : &amx; }

#else
const bf16_unit *bf16_amx(void) { return NULL; }
const char *bf16_amx_missing(void) { return "this build has no AMX, which is for Linux on x86-64"; }
double bf16_seconds(int dots, long rounds, long *flops)
{
    (void)dots, (void)rounds;
    return (double)(*flops = 0);
}
#endif
