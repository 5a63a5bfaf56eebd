/* Whether an order of events is possible; see order.h. */
#include "order.h"

#include "engine/worker.h"

#include <stdlib.h>
#include <string.h>

/* What order_worker.stripe holds: whether a gradient waits for publication, and as which; whether the worker has exchanged
 * the stripe in the exchange under way; whether it has read it in this phase. */
enum { FRESH = 1, POSTPONED = 2, ANY = FRESH | POSTPONED, EXCHANGED = 4, HAS_READ = 8 };

int order_open(order *o, const layout *l)
{
    const size_t workers = (size_t)l->e->n_workers, stripes = (size_t)l->n_stripes;
    *o = (order){.l = l};
    o->done = calloc((size_t)l->most_pieces + 1, 1);
    o->of = calloc(workers, sizeof *o->of);
    o->memory = calloc(workers * stripes + 1, 1);
    o->formed = calloc((size_t)l->n_lanes + 1, 1);
    o->reduced = calloc(stripes + 1, 1);
    return o->of && o->memory && o->formed && o->reduced && o->done ? 0 : -1;
}

void order_close(order *o)
{
    free(o->of);
    free(o->memory);
    free(o->begun);
    free(o->formed);
    free(o->reduced);
    free(o->done);
}

int order_begin(order *o)
{
    const layout *l = o->l;
    const size_t workers = (size_t)l->e->n_workers, stripes = (size_t)l->n_stripes;
    memset(o->memory, 0, workers * stripes);
    for (size_t i = 0; i < workers; i++)
        o->of[i] = (order_worker){.stripe = o->memory + i * stripes};
    memset(o->formed, 0, (size_t)l->n_lanes);
    memset(o->reduced, 0, stripes);
    o->n_begun = o->round = o->n_since_meeting = 0;
    o->n_formed = o->n_reduced = o->n_at_meeting = 0;
    o->stage = o->n_before = o->n_done = 0;
    free(o->begun);
    return (o->begun = calloc((size_t)l->n_steps + 1, 1)) ? 0 : -1;
}

static const char *begin_step(order *o, order_worker *w, int lane, uint32_t what)
{
    const layout *l = o->l;
    const int64_t step = lane < 0 ? what : o->round;
    if (w->doing != IDLE)
        return "the worker has not finished its step";
    if (w->at_meeting)
        return "the worker has not left the meeting";
    if (w->n_exchanged)
        return "the worker has not exchanged all its stripes";
    if (l->n_stages)
        return "this strategy's steps are made of pieces";
    if ((lane < 0) != (l->n_lanes == 0))
        return l->n_lanes ? "this strategy's steps are made of lanes" : "this strategy's steps have no lanes";
    if (step >= l->n_steps)
        return "the phase has fewer steps";
    if (lane < 0 && o->begun[step])
        return "the step has been begun before";
    if (lane >= layout_lanes(l, step))
        return "the step has fewer lanes";
    if (lane >= 0 && o->formed[lane])
        return "the lane has been begun before";
    w->in = layout_place(l, step, lane);
    w->doing = GOES_FORWARD;
    w->copied = 0;
    if (!o->begun[step]) {
        o->begun[step] = 1;
        o->n_begun++;
    }
    if (lane >= 0)
        o->formed[lane] = 1;
    o->n_since_meeting++;
    return NULL;
}

static const char *pass_back(order *o, order_worker *w, uint32_t node)
{
    const layout *l = o->l;
    if (w->doing != GOES_BACKWARD || (int)node != l->backward[w->in.next])
        return "it is not the worker's turn to back-propagate this layer";
    const int last = layout_is_last(l, &w->in);
    const plan_block *block = plan_block_of(l->e->p, (int)node);
    int from, to;
    stripes_of(l->e, (int)node, &from, &to);
    for (int k = from; k < to && w->in.lane < 0; k++) {
        if (w->in.at == w->in.begin && block->first_user == (int)node && w->stripe[k] & ANY)
            return "the layer's gradient of an earlier step has not been published";
        if (last && block->final_user == (int)node) {
            w->stripe[k] |= l->e->strategy->publishes_later ? POSTPONED : FRESH;
            w->n_fresh += !l->e->strategy->publishes_later;
            w->n_unpublished++;
        }
    }
    if (!layout_pass_back(l, &w->in))
        return NULL;
    w->doing = last ? IDLE : GOES_FORWARD;
    if (last && w->in.lane >= 0) {
        o->formed[w->in.lane] = 2;
        o->n_formed++;
    }
    return NULL;
}

static const char *reduce(order *o, uint32_t stripe)
{
    const layout *l = o->l;
    if (l->n_lanes == 0)
        return "this strategy's steps have no lanes";
    if (o->round >= l->n_steps || o->n_formed < layout_lanes(l, o->round))
        return "a lane of the step is missing";
    if (o->reduced[stripe])
        return "the stripe has been updated in this step before";
    o->reduced[stripe] = 1;
    if (++o->n_reduced == l->n_stripes) {
        memset(o->reduced, 0, (size_t)l->n_stripes);
        memset(o->formed, 0, (size_t)l->n_lanes);
        o->n_formed = o->n_reduced = 0;
        o->round++;
    }
    return NULL;
}

static const char *arrive(order *o, order_worker *w)
{
    const layout *l = o->l;
    if (!layout_has_meetings(l))
        return "this strategy's workers do not meet";
    if (w->doing != IDLE || w->n_unpublished)
        return "the worker has not finished its step";
    if (w->at_meeting || o->n_reduced)
        return "the meeting has begun";
    w->at_meeting = 1;
    o->n_at_meeting++;
    return NULL;
}

static const char *leave(order *o, order_worker *w)
{
    const layout *l = o->l;
    if (!w->at_meeting || o->n_reduced < l->n_stripes)
        return "the meeting is not over";
    w->at_meeting = 0;
    if (--o->n_at_meeting == 0) {
        memset(o->reduced, 0, (size_t)l->n_stripes);
        o->n_reduced = 0;
        o->n_since_meeting = 0;
    }
    return NULL;
}

static const char *exchange(order *o, order_worker *w, int worker, uint32_t stripe)
{
    const layout *l = o->l;
    if (l->other[worker] < 0)
        return "the worker makes no exchanges";
    if (layout_has_meetings(l)) {
        if (o->n_at_meeting < l->e->n_workers)
            return "a worker has not come to the meeting";
        if (!o->n_since_meeting)
            return "nothing has happened since the last meeting";
        if (o->reduced[stripe])
            return "the stripe has been exchanged at this meeting before";
        o->reduced[stripe] = 1;
        o->n_reduced++;
        return NULL;
    }
    if (w->doing != IDLE)
        return "the worker has not finished its step";
    if (w->stripe[stripe] & EXCHANGED)
        return "the stripe has been exchanged before";
    w->stripe[stripe] |= EXCHANGED;
    if (++w->n_exchanged == l->n_stripes) {
        for (int k = 0; k < l->n_stripes; k++)
            w->stripe[k] &= (uint8_t)~EXCHANGED;
        w->n_exchanged = 0;
    }
    return NULL;
}

static const char *do_piece(order *o, uint32_t what)
{
    const layout *l = o->l;
    if (!l->n_stages)
        return "this strategy's steps have no pieces";
    if (o->round >= l->n_steps)
        return "the phase has fewer steps";
    const int n = l->n_pieces[o->round == l->n_steps - 1][o->stage];
    if (what < (uint32_t)o->n_before || what - (uint32_t)o->n_before >= (uint32_t)n)
        return "the piece is not one of the stage under way";
    uint8_t *done = &o->done[what - (uint32_t)o->n_before];
    if (*done)
        return "the piece has been done before";
    *done = 1;
    if (++o->n_done == n) {
        memset(o->done, 0, (size_t)n);
        o->n_done = 0;
        o->n_before += n;
        if (++o->stage == l->n_stages) {
            o->stage = o->n_before = 0;
            o->round++;
        }
    }
    return NULL;
}

const char *order_advance(order *o, event ev)
{
    const layout *l = o->l;
    const int kind = event_kind(ev);
    const uint32_t what = event_what(ev);
    if (event_worker(ev) >= l->e->n_workers)
        return "there is no such worker";
    order_worker *w = &o->of[event_worker(ev)];
    if ((kind == EVENT_PUBLISH || kind == EVENT_POSTPONE || kind == EVENT_REDUCE || kind == EVENT_EXCHANGE ||
         kind == EVENT_READ) &&
        what >= (uint32_t)l->n_stripes)
        return "there is no such stripe";
    if (w->n_fresh && kind != EVENT_PUBLISH && kind != EVENT_POSTPONE && kind != EVENT_READ)
        return "the worker has neither published nor postponed a stripe of its last layer";
    switch (kind) {
    case EVENT_STEP: return begin_step(o, w, -1, what);
    case EVENT_LANE: return what < (uint32_t)l->n_lanes ? begin_step(o, w, (int)what, 0) : "the step has fewer lanes";
    case EVENT_COPY:
        if (w->doing != GOES_FORWARD || w->in.at != w->in.begin || w->in.next || w->copied || w->in.lane >= 0 ||
            l->keeps_copy)
            return "weights are copied at the beginning of a step";
        w->copied = 1;
        return NULL;
    case EVENT_FORWARD:
        if (w->doing != GOES_FORWARD || (int)what != l->forward[w->in.next])
            return "it is not the worker's turn to pass this layer";
        if (l->keeps_copy && w->n_read < l->n_stripes)
            return "the worker has not read all stripes";
        if (layout_pass(&w->in, l->n_forward))
            w->doing = GOES_BACKWARD;
        return NULL;
    case EVENT_BACKWARD: return pass_back(o, w, what);
    case EVENT_PUBLISH:
        if (!(w->stripe[what] & ANY))
            return "the worker has no gradient for this stripe";
        w->n_fresh -= (w->stripe[what] & ANY) == FRESH;
        w->n_unpublished--;
        w->stripe[what] &= (uint8_t)~ANY;
        return NULL;
    case EVENT_POSTPONE:
        if ((w->stripe[what] & ANY) != FRESH)
            return "the worker has no fresh gradient for this stripe";
        w->stripe[what] ^= FRESH ^ POSTPONED;
        w->n_fresh--;
        return NULL;
    case EVENT_REDUCE: return reduce(o, what);
    case EVENT_ARRIVE: return arrive(o, w);
    case EVENT_EXCHANGE: return exchange(o, w, event_worker(ev), what);
    case EVENT_LEAVE: return leave(o, w);
    case EVENT_PIECE: return do_piece(o, what);
    case EVENT_READ:
        if (!l->keeps_copy)
            return "this strategy's workers keep no copies";
        w->n_read += !(w->stripe[what] & HAS_READ);
        w->stripe[what] |= HAS_READ;
        return NULL;
    }
    return "there is no such event";
}

const char *order_missing(const order *o)
{
    const layout *l = o->l;
    if (l->n_lanes || l->n_stages ? o->round < l->n_steps : o->n_begun < l->n_steps)
        return "not every image has been passed";
    for (int i = 0; i < l->e->n_workers; i++)
        if (o->of[i].doing != IDLE)
            return "a worker has not finished its step";
        else if (o->of[i].n_unpublished)
            return "a worker has not published all its gradients";
        else if (o->of[i].at_meeting || o->of[i].n_exchanged)
            return "a worker has not finished its exchange";
    if (layout_has_meetings(l) && o->n_since_meeting)
        return "workers have not met after their last steps";
    return NULL;
}
