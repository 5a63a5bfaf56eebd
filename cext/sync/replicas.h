/* Replicas of the process's weights that live for a phase: what elastic and replicated have in common. Included by them. */
#ifndef CHAOS_REPLICAS_H
#define CHAOS_REPLICAS_H

#include "stripes.h"

/* Makes *r a copy of the process's weights and state, in the thread that will use it; -1 after a failure. */
static inline int replica_refresh(engine *e, shared_weights **r)
{
    const size_t bytes = e->p->weight_size * sizeof(float);
    if (!*r) {
        *r = replica_new(e, &e->shared);
        if (!*r)
            fail(e, NO_MEMORY, 0);
        return *r ? 0 : -1;
    }
    memcpy((*r)->w, e->shared.w, bytes);
    copy_versions(*r, &e->shared);
    for (int i = 0; i < e->rule->n_moments; i++)
        memcpy((*r)->moment[i], e->shared.moment[i], bytes);
    return 0;
}

/* At the phase's end, when nobody runs: the state of the update rule. The process gets the mean of the replicas' moments,
 * and of the numbers of updates the greatest. Sums replica by replica; `number` is of the first, from 1. */
static inline void replica_state(engine *e, const shared_weights *r, int number, int replicas)
{
    for (int i = 0; i < e->rule->n_moments; i++)
        for (size_t j = 0; j < e->p->weight_size; j++)
            e->shared.moment[i][j] = (number == 1 ? 0 : e->shared.moment[i][j]) + r->moment[i][j] / (float)replicas;
    for (int k = 0; k < e->shared.n_stripes; k++)
        if (number == 1 || stripe_version(&r->state[k]) > stripe_version(&e->shared.state[k]))
            e->shared.state[k].version = r->state[k].version;
}

#endif
