/* Weight vectors beside the process's; see replica.h. */
#include "replica.h"

#include "memory.h"

#include <stdlib.h>

shared_weights *replica_new(const engine *e, const shared_weights *of)
{
    shared_weights *s = malloc(sizeof *s);
    const size_t bytes = e->p->weight_size * sizeof(float), states = ((size_t)of->n_stripes + 1) * sizeof *s->state;
    int missing = !s;
    if (s) {
        *s = *of;
        missing = !(s->w = memory_zeros(bytes + 1));
        missing |= !(s->state = memory_zeros(states));
        for (int i = 0; i < e->rule->n_moments; i++)
            missing |= !(s->moment[i] = memory_zeros(bytes + 1));
    }
    if (missing) {
        replica_free(s);
        return NULL;
    }
    memcpy(s->w, of->w, bytes);
    shared_copy_versions(s, of);
    for (int i = 0; i < e->rule->n_moments; i++)
        memcpy(s->moment[i], of->moment[i], bytes);
    return s;
}

void replica_free(shared_weights *s)
{
    if (!s)
        return;
    free(s->w);
    free(s->state);
    for (int i = 0; i < MAX_MOMENTS; i++)
        free(s->moment[i]);
    free(s);
}
