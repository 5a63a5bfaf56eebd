/* The recorder of events; see trace.h. */
#include "trace.h"

#include "wait.h"

#include <stdlib.h>

int trace_start(engine *e)
{
    if (e->trace)
        return 0;
    trace *t = aligned_alloc(128, round_up(sizeof *t, 128));
    if (!t)
        return -1;
    memset(t, 0, sizeof *t);
    t->lane = calloc((size_t)e->n_workers, sizeof *t->lane);
    int missing = !t->lane;
    for (int i = 0; !missing && i < e->n_workers; i++) {
        const size_t bytes = round_up(e->p->weight_size * sizeof(float) + 1, 128);
        t->n_lanes++;
        t->lane[i].of = t;
        if (!(missing = !(t->lane[i].copy = aligned_alloc(128, bytes))))
            memset(t->lane[i].copy, 0, bytes);
    }
    if (missing) {
        trace_free(t);
        return -1;
    }
    e->trace = t;
    return 0;
}

void trace_free(trace *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->n_lanes; i++) {
        free(t->lane[i].record);
        free(t->lane[i].copy);
    }
    free(t->lane);
    free(t);
}

int64_t trace_count(const engine *e)
{
    int64_t n = 0;
    for (int i = 0; e->trace && i < e->trace->n_lanes; i++)
        n += (int64_t)e->trace->lane[i].n;
    return n;
}

void trace_take(engine *e, event *out)
{
    for (int i = 0; i < e->trace->n_lanes; i++) {
        trace_lane *l = &e->trace->lane[i];
        for (size_t j = 0; j < l->n; j++)
            out[l->record[j].number] = l->record[j].what;
        l->n = 0;
    }
    e->trace->next = 0;
}

void trace_event(worker *w, enum event_kind kind, uint32_t what)
{
    trace_lane *l = w->trace;
    if (l->n == l->capacity) {
        const size_t capacity = l->capacity ? 2 * l->capacity : 1 << 14;
        void *more = realloc(l->record, capacity * sizeof *l->record);
        if (!more) { /* the run is void: nothing more is recorded, not even numbered */
            __atomic_store_n(&w->e->failure, NO_MEMORY, __ATOMIC_RELAXED);
            return;
        }
        l->record = more;
        l->capacity = capacity;
    }
    l->record[l->n].number = __atomic_fetch_add(&l->of->next, 1, __ATOMIC_RELAXED);
    l->record[l->n++].what = event_of(kind, w->id, what);
}

void trace_read(worker *w, int node, enum event_kind kind, int note_versions)
{
    int from, to;
    if (w->reads != w->trace->copy) {
        trace_event(w, kind, (uint32_t)node);
        return;
    }
    stripes_of(w->e, node, &from, &to);
    /* in ascending order; whoever publishes holds one stripe and waits for none, so nobody waits in a circle */
    for (int k = from; k < to; k++)
        for (int round = 0; !stripe_try_lock(&w->shared->state[k]); round++)
            if (round < 64)
                wait_briefly();
            else
                wait_for_core();
    for (int k = from; k < to; k++) {
        if (note_versions)
            w->seen[k] = stripe_version(&w->shared->state[k]);
        shared_copy(w->shared, w->shared->stripe[k].at, w->shared->stripe[k].size, w->trace->copy);
    }
    trace_event(w, kind, (uint32_t)node);
    for (int k = from; k < to; k++)
        stripe_unlock(&w->shared->state[k]);
}
