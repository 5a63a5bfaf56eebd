/* What an executor of events knows before it sees any: the layers in the order of the passes, how steps are cut into images,
 * lanes and pieces, and which weights each worker trains. For this room. */
#ifndef CHAOS_LAYOUT_H
#define CHAOS_LAYOUT_H

#include "engine/engine.h"
#include "engine/lanes.h"

#include <stdint.h>

typedef struct {
    engine *e;
    int n_forward, n_backward, *forward, *backward; /* nodes with weights, in the order of the passes */
    int *layer; /* per node with weights or state: its block */
    int n_stripes, n_lanes, keeps_copy;
    int n_stages; /* of a step; 0: it has none */
    int *n_pieces[2]; /* per stage: of a step; of the last one, which may be shorter */
    int most_pieces;
    /* of the phase */
    int64_t begin, end, n_steps;
    int *vector; /* per worker: which weights it trains, 0: the process's */
    int *other; /* per worker: with which it exchanges them; -1: with none */
    uint8_t *users; /* per vector: workers that touch it outside of meetings; 2: or more */
    int n_vectors;
} layout;

/* Where a worker is in its step. */
typedef struct {
    int64_t begin, end, at; /* images of the step; of the chunk */
    int next; /* place of the next layer in layout.forward or .backward */
    int lane; /* of the step under way; -1: all of it */
} place;

/* -1 when out of memory. */
int layout_open(layout *l, engine *e, int lanes);
void layout_close(layout *l);
/* For images [begin, end): gives every worker its weights and finds out who shares which; -1 when out of memory. */
int layout_begin(layout *l, int64_t begin, int64_t end);

static inline int64_t layout_step_end(const layout *l, int64_t step)
{
    const int64_t end = l->begin + (step + 1) * l->e->batch;
    return end < l->end ? end : l->end;
}

static inline int layout_lanes(const layout *l, int64_t step)
{
    const int64_t n = layout_step_end(l, step) - (l->begin + step * l->e->batch);
    return lanes_in(n, l->n_lanes, l->e->p->group);
}

static inline int layout_has_meetings(const layout *l)
{
    return l->e->strategy->replicas && l->e->strategy->replicas->arrive;
}

/* The beginning of a step, or of one of its lanes. */
place layout_place(const layout *l, int64_t step, int lane);

/* Whether the chunk is the step's or lane's last; its images. */
static inline int layout_is_last(const layout *l, const place *p) { return p->at + l->e->chunk >= p->end; }
static inline int layout_images(const layout *l, const place *p)
{
    return layout_is_last(l, p) ? (int)(p->end - p->at) : l->e->chunk;
}

/* Past the next of n layers: whether it was the last. */
static inline int layout_pass(place *p, int n)
{
    if (++p->next < n)
        return 0;
    p->next = 0;
    return 1;
}

/* Past the next layer on the way back: whether the chunk is through. */
static inline int layout_pass_back(const layout *l, place *p)
{
    if (!layout_pass(p, l->n_backward))
        return 0;
    p->at += l->e->chunk;
    return 1;
}

#endif
