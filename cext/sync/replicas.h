/* Replicas of the process's weights that live for a phase: what domains, elastic and replicated have in common. Included by
 * them. */
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
            team_fail(e, NO_MEMORY, 0);
        return *r ? 0 : -1;
    }
    memcpy((*r)->w, e->shared.w, bytes);
    shared_copy_versions(*r, &e->shared);
    for (int i = 0; i < e->rule->n_moments; i++)
        memcpy((*r)->moment[i], e->shared.moment[i], bytes);
    return 0;
}

/* At the phase's end, when nobody runs: the state of the update rule. The process gets the mean of the replicas' moments,
 * in which each counts as often as its stripe was updated in this phase (one that was not still has the old state, which
 * does not go with the new number of updates), and of the numbers of updates the greatest. `at`: the i-th of n replicas,
 * NULL if it is not of this phase. */
static inline void replica_states(engine *e, const shared_weights *(*at)(const engine *, int), int n)
{
    for (int k = 0; k < e->shared.n_stripes; k++) {
        const stripe *t = &e->stripe[k];
        const uint32_t before = stripe_version(&e->shared.state[k]);
        uint32_t most = 0;
        double all = 0, so_far = 0;
        for (int i = 0; i < n; i++) {
            const uint32_t updates = at(e, i) ? stripe_version(&at(e, i)->state[k]) - before : 0;
            most = updates > most ? updates : most;
            all += updates;
        }
        for (int i = 0; i < n && so_far < all; i++) {
            const shared_weights *r = at(e, i);
            const uint32_t updates = r ? stripe_version(&r->state[k]) - before : 0;
            const float share = (float)(updates / all);
            for (int m = 0; updates && m < e->rule->n_moments; m++)
                for (size_t j = t->at; j < t->at + t->size; j++)
                    e->shared.moment[m][j] = (so_far > 0 ? e->shared.moment[m][j] : 0) + share * r->moment[m][j];
            so_far += updates;
        }
        e->shared.state[k].version = before + most;
    }
}

#endif
