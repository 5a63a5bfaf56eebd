/* y = f(x), entry by entry: a row for each function, of x and the options a and b, with its derivative, of x and y, times dy.
 * Whole vectors run into the slack behind a sample. NaN stays NaN: vmin and vmax give their second argument then. Body: included
 * by cext/isa/ only. */
#include "layer.h"

#define LAYER_ROW(id, forgotten, has, of_x, times_dy)                                                                       \
    KERNEL const char *id##_set_up(geometry *g)                                                                             \
    {                                                                                                                       \
        const float a = g->real[0], b = g->real[1];                                                                         \
        (void)a, (void)b;                                                                                                   \
        g->out = g->in[0];                                                                                                  \
        g->properties = has;                                                                                                \
        return NULL;                                                                                                        \
    }                                                                                                                       \
    KERNEL void id##_forward(const geometry *g, const call *c)                                                              \
    {                                                                                                                       \
        const vec a = vset(g->real[0]), b = vset(g->real[1]);                                                               \
        (void)a, (void)b;                                                                                                   \
        for (int n = 0; n < c->n; n++)                                                                                      \
            for (size_t i = 0, size = shape_size(g->out); i < size; i += VW) {                                              \
                const vec x = vload(c->x[0].p + (size_t)n * c->x[0].stride + i);                                            \
                vstore(c->y.p + (size_t)n * c->y.stride + i, of_x);                                                         \
            }                                                                                                               \
    }                                                                                                                       \
    KERNEL void id##_backward(const geometry *g, const call *c)                                                             \
    {                                                                                                                       \
        const vec a = vset(g->real[0]), b = vset(g->real[1]);                                                               \
        (void)a, (void)b;                                                                                                   \
        for (int n = 0; c->dx[0].p && n < c->n; n++)                                                                        \
            for (size_t i = 0, size = shape_size(g->out); i < size; i += VW) {                                              \
                const vec x = vload(c->x[0].p + (size_t)n * c->x[0].stride + i);                                            \
                const vec y = vload(c->y.p + (size_t)n * c->y.stride + i);                                                  \
                const vec dy = vload(c->dy.p + (size_t)n * c->dy.stride + i);                                               \
                (void)x, (void)y;                                                                                           \
                vstore(c->dx[0].p + (size_t)n * c->dx[0].stride + i, times_dy);                                             \
            }                                                                                                               \
    }                                                                                                                       \
    static const layer_kind layer_##id = {                                                                                  \
        .name = #id, .set_up = id##_set_up, .forward = id##_forward, .backward = id##_backward, .forgets = forgotten};

INLINE vec vabs(vec x) { return (vec)((ivec)x & iset(INT32_MAX)); }
INLINE vec vkeep(ivec mask, vec x) { return (vec)((ivec)x & mask); }
INLINE vec clamped(vec x, vec low, vec high) { return vmin(high, vmax(low, x)); }
/* exp(x) - 1 for x <= 0, and the limit from -87 on; 0 for other x */
INLINE vec expm1_below(vec x) { return vexpm1(clamped(x, vset(-87), vset(0))); }

/* log(1 + exp(x)) = max(x, 0) + log(1 + u), u = exp(-|x|); log(1 + u) = 2 atanh(s), s = u / (2 + u) <= 1/3, by its series up
 * to s^15, the rest is below 2^-29 of it. */
INLINE vec log_1_exp(vec x)
{
    const vec u = vexp(-vabs(x)), s = vquotient(u, u + 2.f), q = s * s;
    vec p = vset(1.f / 15);
    p = p * q + 1.f / 13;
    p = p * q + 1.f / 11;
    p = p * q + 1.f / 9;
    p = p * q + 1.f / 7;
    p = p * q + 1.f / 5;
    p = p * q + 1.f / 3;
    p = p * q + 1.f;
    return vmax(vset(0), x) + 2.f * s * p;
}

/* max(x, 0) - |x| t p(t) exp(-z^2), z = |x| / sqrt 2, t = 1 / (1 + z / 2): of the normal distribution beyond |x|, 1/2 erfc(z),
 * with p of degree 8 fitted for the least relative error up to z = 11, 1.4e-7 with its roundings. */
INLINE vec gelu_of(vec x)
{
    static const float factor[] = {0.14279665f,  -0.24465524f, 0.14024195f, -0.0141458455f,
                                   0.101696065f, 0.12146275f,  0.1411999f,  0.141042515f};
    const vec size = vmin(vset(13.15f), vabs(x)), z = size * 0.70710678f, t = vquotient(vset(1), z * 0.5f + 1.f);
    vec power, p = vset(-0.0296387375f);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        p = p * t + factor[i];
    const vec e = vexp_parts(-z * z, &power);
    return vmax(vset(0), x) - size * (t * p * (power * e + power));
}

/* The derivative less 1/2 is odd: x times a quotient of polynomials of x^2, fitted for the least error for |x| <= 6, where it
 * becomes constant; off by at most 4e-7 with its roundings. */
INLINE vec gelu_derivative(vec x)
{
    static const float over[] = {2.02162809e-7f, 3.62970168e-5f, 2.1878217e-5f,
                                 1.42400134e-2f, -3.0771248e-2f, 0.797885418f};
    static const float under[] = {1.93335116e-4f, 3.54153616e-3f, 4.10850607e-2f, 0.294776142f, 1.f};
    const vec z = clamped(x, vset(-6), vset(6)), q = z * z;
    vec a = vset(-3.39570559e-11f), b = vset(9.1381944e-6f);
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++)
        a = a * q + over[i];
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
        b = b * q + under[i];
    return 0.5f + vquotient(z * a, b);
}

/* GELU with tanh in place of the normal distribution (Hendrycks, Gimpel 2016): x (1 + tanh u) / 2 = x sigmoid(2 u). */
INLINE vec gelu_tanh_gate(vec x) { return vsigmoid(x * (1.5957691f + 0.071354816f * (x * x))); }
INLINE vec gelu_tanh_derivative(vec x)
{
    const vec s = gelu_tanh_gate(x);
    return s + s * (1.f - s) * x * (1.5957691f + 0.21406445f * (x * x));
}

INLINE vec silu_derivative(vec x)
{
    const vec s = vsigmoid(x);
    return s * (1.f + x * (1.f - s));
}

/* tanh(log(1 + e)) = n / (n + 2), e = exp(x), n = e (e + 2); 1 to the last bit from 20 on. */
INLINE vec mish_e(vec x)
{
    vec power;
    const vec p = vexp_parts(vmin(vset(20), vmax(vset(-87), x)), &power); /* a NaN stays one */
    return power * p + power;
}
INLINE vec mish_of(vec x)
{
    const vec e = mish_e(x), n = e * (e + 2.f);
    return x * vquotient(n, n + 2.f);
}
/* The sigmoid of x is e / (1 + e), and 4 (n + 1) = 4 (1 + e)^2. */
INLINE vec mish_derivative(vec x)
{
    const vec e = mish_e(x), n = e * (e + 2.f), more = vquotient(vset(1), n + 2.f);
    return n * more + x * e * (4.f * (1.f + e) * more * more);
}

#define SELU_SCALE 1.05070099f
#define SELU_ALPHA 1.67326324f

/* clang-format off */
/*        name         forgets    properties               what it is                                 dy f'(x) */
LAYER_ROW(relu,        FORGETS_X, MONOTONE,                 vselect(x <= 0.f, vset(0), x),             vkeep(y > 0.f, dy))
LAYER_ROW(relu6,       FORGETS_X, MONOTONE,                 vmin(vset(6), vselect(x <= 0.f, vset(0), x)),
                                                                                            vkeep((y > 0.f) & (y < 6.f), dy))
LAYER_ROW(leaky_relu,  FORGETS_Y, a >= 0 ? MONOTONE : 0,    vselect(x <= 0.f, a * x, x),               vselect(x <= 0.f, a * dy, dy))
LAYER_ROW(elu,         0,         a >= 0 ? MONOTONE : 0,    vselect(x <= 0.f, a * expm1_below(x), x),  vselect(x <= 0.f, dy * (y + a), dy))
LAYER_ROW(selu,        0,         MONOTONE,                 SELU_SCALE * vselect(x <= 0.f, SELU_ALPHA * expm1_below(x), x),
                                                 vselect(x <= 0.f, dy * (y + SELU_SCALE * SELU_ALPHA), SELU_SCALE * dy))
LAYER_ROW(celu,        0,         a >= 0 ? MONOTONE : 0,    vselect(x <= 0.f, a * expm1_below(x * (1.f / a)), x),
                                                                                            vselect(x <= 0.f, dy * (y * (1.f / a) + 1.f), dy))
LAYER_ROW(gelu,        FORGETS_Y, 0,                        gelu_of(x),                                dy * gelu_derivative(x))
LAYER_ROW(gelu_tanh,   FORGETS_Y, 0,                        x * gelu_tanh_gate(x),                     dy * gelu_tanh_derivative(x))
LAYER_ROW(silu,        FORGETS_Y, 0,                        x * vsigmoid(x),                           dy * silu_derivative(x))
LAYER_ROW(mish,        FORGETS_Y, 0,                        mish_of(x),                                dy * mish_derivative(x))
LAYER_ROW(hardswish,   FORGETS_Y, 0,                        x * clamped(x + 3.f, vset(0), vset(6)) * (1.f / 6),
                                                 vkeep(x > -3.f, vselect(x >= 3.f, dy, dy * (x * (1.f / 3) + 0.5f))))
LAYER_ROW(hardsigmoid, FORGETS_Y, MONOTONE,                 clamped(x + 3.f, vset(0), vset(6)) * (1.f / 6),
                                                                                            vkeep((x > -3.f) & (x < 3.f), dy * (1.f / 6)))
LAYER_ROW(hardtanh,    FORGETS_Y, MONOTONE,                 clamped(x, a, b),                          vkeep((x > a) & (x < b), dy))
LAYER_ROW(tanh,        FORGETS_X, MONOTONE,                 vtanh(x),                                  dy * (1.f - y * y))
LAYER_ROW(scaled_tanh, FORGETS_X, MONOTONE,                 1.7159f * vtanh(x * (2.f / 3)), /* LeCun's */
                                                 dy * ((2.f / 3 * 1.7159f) - y * y * (2.f / 3 / 1.7159f)))
LAYER_ROW(tanhshrink,  0,         MONOTONE,                 x - vtanh(x),                              dy * ((x - y) * (x - y)))
LAYER_ROW(sigmoid,     FORGETS_X, MONOTONE,                 vsigmoid(x),                               dy * (y * (1.f - y)))
LAYER_ROW(log_sigmoid, FORGETS_Y, MONOTONE,                 -log_1_exp(-x),                            dy * vsigmoid(-x))
LAYER_ROW(softplus,    FORGETS_Y, a > 0 ? MONOTONE : 0,     vselect(x * a > b, x, log_1_exp(x * a) * (1.f / a)),
                                                                                            vselect(x * a > b, dy, dy * vsigmoid(x * a)))
LAYER_ROW(softsign,    FORGETS_Y, MONOTONE,                 x / (1.f + vabs(x)),                       dy / ((1.f + vabs(x)) * (1.f + vabs(x))))
LAYER_ROW(threshold,   FORGETS_Y, b <= a ? MONOTONE : 0,    vselect(x <= a, b, x),                     vkeep(~(x <= a), dy))
LAYER_ROW(hardshrink,  FORGETS_Y, MONOTONE,                 vkeep(~(vabs(x) <= a), x),                 vkeep(~(vabs(x) <= a), dy))
LAYER_ROW(softshrink,  FORGETS_Y, MONOTONE,                 vkeep(~(vabs(x) <= a), vselect(x < 0.f, x + a, x - a)),
                                                                                            vkeep(~(vabs(x) <= a), dy))
LAYER_ROW(identity,    FORGETS_X | FORGETS_Y, MONOTONE,                 x,                                         dy)
LAYER_ROW(affine,      FORGETS_X | FORGETS_Y, a >= 0 ? MONOTONE : 0,    a * x + b,                                 a * dy)
LAYER_ROW(abs,         FORGETS_Y, 0,                        vabs(x),                                   vselect(x < 0.f, -dy, vkeep(x > 0.f, dy)))
/* clang-format on */
