/* The memory of one worker; see worker.h. */
#include "worker.h"

#include "memory.h"
#include "ticks.h"

#include <stdlib.h>

/* Places a block of n elements of `size` bytes at *used, on a cache line of its own; NULL base: only counts. */
static void *place(char *base, size_t *used, size_t n, size_t size)
{
    void *at = base ? base + *used : NULL;
    *used += round_up(n * size, 128);
    return at;
}

/* To the arrays of the nodes, in all ways in which they share their places. */
static void point(worker *w, const engine *e, float *arrays)
{
    const plan *p = e->p;
    for (int s = 0; s < SHARINGS; s++)
        for (int i = 0; (s == UNSHARED) == e->apart && i < p->n_nodes; i++) {
            w->values[s][i] = arrays + p->places[s].value[i] * (size_t)e->chunk;
            w->keeps[s][i] = arrays + p->places[s].keep[i] * (size_t)e->chunk;
        }
    for (int d = 0; d < p->n_edges; d++)
        w->delta[d] = arrays + p->places[e->apart ? UNSHARED : SHARED_LEARNING].delta[d] * (size_t)e->chunk;
}

static size_t lay_out(worker *w, const engine *e, char *base)
{
    const plan *p = e->p;
    const int n_stripes = e->shared.n_stripes, chunk = e->chunk;
    size_t used = 0;
    size_t room = 0;
    for (int s = 0; s < SHARINGS; s++) {
        w->values[s] = place(base, &used, (size_t)p->n_nodes, sizeof(float *));
        w->keeps[s] = place(base, &used, (size_t)p->n_nodes, sizeof(float *));
        if ((s == UNSHARED) == e->apart && p->places[s].size > room)
            room = p->places[s].size;
    }
    w->delta = place(base, &used, (size_t)p->n_edges, sizeof(float *));
    float *arrays = place(base, &used, room * (size_t)chunk, sizeof(float));
    if (base)
        point(w, e, arrays);
    w->scratch = place(base, &used, p->scratch_size, sizeof(float));
    w->dw = place(base, &used, p->weight_size, sizeof(float));
    w->private_copy = place(base, &used, CHAOS_CAREFUL ? p->weight_size * (size_t)(1 + e->rule->n_moments) : 0,
                            sizeof(float));
    w->seen = place(base, &used, (size_t)n_stripes, sizeof *w->seen);
    w->version = place(base, &used, (size_t)n_stripes, sizeof *w->version);
    w->pending = place(base, &used, (size_t)n_stripes, sizeof *w->pending);
    w->postponed = place(base, &used, (size_t)n_stripes, sizeof *w->postponed);
    w->layer = place(base, &used, (size_t)e->n_layers, sizeof *w->layer);
    w->image = place(base, &used, (size_t)chunk, sizeof *w->image);
    w->key = place(base, &used, (size_t)chunk, sizeof *w->key);
    const int mixes = augment_mixing(&e->augment) < e->augment.n;
    w->mix = place(base, &used, mixes ? (size_t)chunk : 0, sizeof *w->mix);
    w->soft = place(base, &used, mixes ? shape_size(p->node[p->output].g.out) : 0, sizeof *w->soft);
    w->augment = place(base, &used, augment_room(&e->augment, p->node[0].g.out), sizeof *w->augment);
    w->strategy_data = place(base, &used, e->strategy->data_size ? e->strategy->data_size(e) : 0, sizeof(float));
    return used;
}

size_t worker_bytes(const engine *e)
{
    worker w;
    return sizeof w + lay_out(&w, e, NULL);
}

/* In the worker's thread, so that the pages are near its core. */
worker *worker_new(engine *e, int id)
{
    worker *w = aligned_alloc(128, round_up(sizeof *w, 128));
    if (!w)
        return NULL;
    memset(w, 0, sizeof *w);
    char *memory = memory_zeros(lay_out(w, e, NULL));
    if (!memory) {
        free(w);
        return NULL;
    }
    lay_out(w, e, memory);
    w->memory = (float *)memory;
    w->e = e;
    w->id = id;
    w->shared = &e->shared;
    return w;
}

void worker_free(worker *w)
{
    if (w)
        free(w->memory);
    free(w);
}

void worker_begin(worker *w)
{
    const engine *e = w->e;
    const int sharing = e->apart ? UNSHARED : engine_learns(e) ? SHARED_LEARNING : SHARED_FORWARD;
    memset(&w->count, 0, sizeof w->count);
    w->value = w->values[sharing];
    w->keep = w->keeps[sharing];
    w->step = e->step;
    memset(w->layer, 0, (size_t)e->n_layers * sizeof *w->layer);
    w->count.begin = ticks();
}
