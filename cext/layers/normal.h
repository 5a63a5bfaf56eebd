/* Logarithm and cosine for normal numbers from uniform ones (Box, Muller 1958). Body: included by the bodies that draw some. */
#ifndef CHAOS_NORMAL_H
#define CHAOS_NORMAL_H

/* log(u) for normal u > 0: u = 2^e m with m in [sqrt(1/2), sqrt(2)), log(m) = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716,
 * by its series up to s^9, the rest is below 2^-28 of it. */
INLINE vec normal_log(vec u)
{
    const ivec e = ((ivec)u - 0x3f3504f3) >> 23;
    const vec m = (vec)((ivec)u - (e << 23)), s = (m - 1.f) / (m + 1.f), q = s * s;
    vec p = vset(1.f / 9);
    p = p * q + 1.f / 7;
    p = p * q + 1.f / 5;
    p = p * q + 1.f / 3;
    return __builtin_convertvector(e, vec) * 0.693147181f + (s + s + 2.f * s * q * p);
}

/* cos(2 pi u) for u in [0, 1]: sin(2 pi t) with t = |u - 1/2| - 1/4 in [-1/4, 1/4], by its series up to t^13, the rest is
 * below 2^-30. */
INLINE vec normal_cosine(vec u)
{
    const vec from = u - 0.5f, t = (vec)((ivec)from & iset(INT32_MAX)) - 0.25f, a = t * 6.28318531f, q = a * a;
    vec p = vset(1.f / 6227020800.f);
    p = p * q - 1.f / 39916800;
    p = p * q + 1.f / 362880;
    p = p * q - 1.f / 5040;
    p = p * q + 1.f / 120;
    p = p * q - 1.f / 6;
    return a + a * q * p;
}

#endif
