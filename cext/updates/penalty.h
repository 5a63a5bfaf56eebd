/* What the rules share: weight decay, powers, the smallest denominator. Included by the bodies. */
#ifndef CHAOS_PENALTY_H
#define CHAOS_PENALTY_H

/* Gradient of weight_decay / 2 * |w|^2 + l1 * |w|_1; with sign(0) = 0, so that padding stays 0. */
typedef struct {
    vec l2, l1;
    int any;
} penalty;

INLINE penalty penalty_of(double weight_decay, double l1)
{
    return (penalty){vset((float)weight_decay), vset((float)l1), weight_decay != 0 || l1 != 0};
}

INLINE vec penalised(const penalty *p, vec w, vec g)
{
    if (!p->any)
        return g;
    return (g + p->l2 * w) + ((vec)((ivec)(w > 0.f) & (ivec)p->l1) - (vec)((ivec)(w < 0.f) & (ivec)p->l1));
}

INLINE penalty both_penalties(const update_step *s) { return penalty_of(s->option[RULE_WEIGHT_DECAY], s->option[RULE_L1]); }

/* b^t for 0 <= b < 1, t = 0 meaning 2^32: at most 32 rounds, where pow would be a call into the mathematical library. */
INLINE double power(double b, uint32_t t)
{
    double p = t ? 1 : 0;
    for (; t; t >>= 1, b *= b)
        if (t & 1)
            p *= b;
    return p;
}

/* What is added to a denominator. Never 0: in the padding everything else is. */
INLINE vec epsilon(double eps) { return vset(eps > 0 ? (float)eps : 1e-8f); }

#endif
