/* Whether an order of events is possible: what each worker, and all of them, must have done before an event. For this room. */
#ifndef CHAOS_ORDER_H
#define CHAOS_ORDER_H

#include "layout.h"

#include "engine/event.h"

/* How far a worker has come. */
typedef struct {
    enum { IDLE, GOES_FORWARD, GOES_BACKWARD } doing;
    place in;
    int copied; /* its step sees a copy of all weights */
    int at_meeting; /* has arrived at a meeting and not left it */
    int n_exchanged; /* stripes, of the exchange under way */
    int n_read; /* stripes that it has read in this phase */
    int n_fresh; /* stripes of the layer just passed, neither published nor postponed */
    int n_unpublished; /* gradients that wait for publication */
    uint8_t *stripe; /* per stripe: see order.c */
} order_worker;

/* How far all have. */
typedef struct {
    const layout *l;
    order_worker *of;
    uint8_t *memory;
    uint8_t *begun; /* per step */
    int64_t n_begun;
    int64_t round; /* the step under way, where lanes or stages are done one step after the other */
    uint8_t *formed; /* per lane: 1 begun, 2 complete */
    int n_formed;
    uint8_t *reduced; /* per stripe: in this step, or exchanged at this meeting */
    int n_reduced;
    int stage, n_before, n_done; /* of the step under way; pieces of its earlier stages; of this stage, done */
    uint8_t *done; /* per piece of the stage */
    int n_at_meeting; /* workers that have arrived at the meeting and not left it */
    int64_t n_since_meeting; /* steps begun since the last one */
} order;

/* Where in its steps the order is. */
typedef struct {
    int64_t round;
    int stage, n_before;
} order_position;

/* -1 when out of memory. */
int order_open(order *o, const layout *l);
void order_close(order *o);
int order_begin(order *o);
static inline order_position order_where(const order *o) { return (order_position){o->round, o->stage, o->n_before}; }
/* Moves on by one event, or says why it is not possible. */
const char *order_advance(order *o, event ev);
/* What is missing at the end of a phase, or NULL. */
const char *order_missing(const order *o);

#endif
