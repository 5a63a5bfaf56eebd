/* The executor of events; see replay.h. */
#include "threads.h"

#include "bounds.h"
#include "feed.h"
#include "lanes.h"
#include "memory.h"
#include "pass.h"
#include "phase.h"
#include "replay.h"
#include "team.h"
#include "wait.h"
#include "weights.h"
#include "worker.h"

#include <stdlib.h>
#include <string.h>

enum stage { IDLE, FORTH, BACK };
enum gradient { NONE, FRESH = 1, POSTPONED = 2, ANY = FRESH | POSTPONED, EXCHANGED = 4, KEPT = 8 };

/* Where a worker is in its step. */
typedef struct {
    int64_t begin, end, at; /* images of the step; of the chunk */
    int next;               /* place of the next layer in replay.forth or .back */
    int lane;               /* of the step under way; -1: all of it */
} place;

/* How far a worker has come in the events that have been checked. */
typedef struct {
    enum stage stage;
    place in;
    int copied;
    int met;      /* has arrived at a meeting and not left it */
    int n_exchanged; /* stripes, of the exchange under way */
    int n_kept;      /* stripes that it has read in this phase */
    int n_fresh;   /* stripes of the layer just passed, neither published nor postponed */
    int n_left;   /* gradients that wait for publication */
    uint8_t *gradient; /* per stripe; EXCHANGED and KEPT are added where it is */
} walk;

/* How far all have. */
typedef struct {
    walk *of;
    uint8_t *memory;
    uint8_t *begun; /* per step */
    int64_t n_begun;
    int64_t round;     /* the synchronous step under way */
    uint8_t *formed;   /* per lane: 1 begun, 2 complete */
    int n_formed;
    uint8_t *reduced;  /* per stripe: in this step, or exchanged at this meeting */
    int n_reduced;
    int stage, n_before, n_done; /* of the step under way; pieces of its earlier stages; of this stage, done */
    uint8_t *done;     /* per piece of the stage */
    int n_met;         /* workers that have arrived at the meeting and not left it */
    int64_t n_apart;   /* steps begun since the last one */
} course;

/* How an event meets the weights that workers share. */
enum access { APART, READS, READS_ALL, WRITES, WRITES_TWO };

/* What an event has to wait for when threads run at once: the worker's earlier events; and reads of a layer commute, everything
 * else about it happens in the given order. */
typedef struct {
    uint32_t turn;  /* that many of the worker's events are done */
    uint32_t
        after; /* that many earlier accesses are done: READS the layer's writes, READS_ALL all layers' writes, WRITES all
                       of the layer's */
    uint32_t also;  /* WRITES_TWO: the same of layer `second` */
    uint32_t step;  /* LANE, REDUCE, PIECE: its number; EXCHANGE: so many workers have arrived at meetings */
    int32_t at, second; /* places in replay.sequence; READS_ALL: of the first layer; PIECE: its stage, its place there */
    uint8_t access;
} ticket;

/* Accesses to a layer that are done, or, while events are checked, that have been seen. */
typedef struct {
    _Alignas(128) uint32_t all;
    uint32_t writes;
} sequence;

typedef struct {
    _Alignas(64) uint32_t done; /* events of the worker */
} progress;

struct replay {
    engine *e;
    int n_forth, n_back, *forth, *back; /* layers in the order of the passes */
    int n_stripes, n_lanes, n_threads, keeps;
    int n_stages;                       /* of a step; 0: it has none */
    int *n_pieces[2];                   /* per stage: of a step; of the last one, which may be shorter */
    int begun;                          /* stage_hooks.begin has been called */
    course checked;
    place *in;       /* per worker, as far as it has been run */
    call *unwritten; /* per worker: what worker.unwritten points to */
    float **copy;    /* per worker: for EVENT_COPY, made when first needed */
    float **lane;    /* per lane: its gradient */
    int64_t begin, end, n_steps;
    int *layer;         /* per node with weights: its place among those */
    int *vector;        /* per worker: which weights it trains, 0: the process's */
    int *other;         /* per worker: with which it exchanges them; -1: with none */
    uint8_t *users;     /* per vector: workers that touch it outside of meetings; 2: or more */
    int n_vectors;
    sequence *sequence; /* per vector and layer */
    progress *progress; /* per worker */
    /* of the events under way */
    const event *events;
    ticket *ticket;
    int64_t n_events, room;
    struct fate *fate; /* per thread */
    uint32_t n_arrivals; /* among the events that have been checked */
    uint32_t n_checked, stage_at; /* pieces among them; of those, before the stage under way */
    _Alignas(128) uint32_t arrived;
    _Alignas(128) uint32_t n_run; /* pieces */
    _Alignas(128) int64_t next;  /* event that no thread has taken */
    _Alignas(128) int64_t limit; /* events from there on are not run: one has failed, or there are no more */
};

/* How the events of a thread have ended, the thread's own lines. */
struct fate {
    _Alignas(128) int status;
    int64_t at, image; /* of the event that failed first; where its loss is not finite */
};

static int course_new(course *c, int n_workers, int n_stripes, int n_lanes, int n_pieces)
{
    c->done = calloc((size_t)n_pieces + 1, 1);
    c->of = calloc((size_t)n_workers, sizeof *c->of);
    c->memory = calloc((size_t)n_workers * (size_t)n_stripes + 1, 1);
    c->formed = calloc((size_t)n_lanes + 1, 1);
    c->reduced = calloc((size_t)n_stripes + 1, 1);
    for (int i = 0; c->of && i < n_workers; i++)
        c->of[i].gradient = c->memory + (size_t)i * (size_t)n_stripes;
    return c->of && c->memory && c->formed && c->reduced && c->done ? 0 : -1;
}

static void course_free(course *c)
{
    free(c->of);
    free(c->memory);
    free(c->begun);
    free(c->formed);
    free(c->reduced);
    free(c->done);
}

/* How many pieces the stages of a step of n images have; `most` becomes at least the most. -1 when out of memory. */
static int count_pieces(replay *r, int which, int64_t n, int *most)
{
    const char *name;
    int node;
    r->n_stages = r->e->strategy->stages && !r->n_lanes ? r->e->strategy->stages->count(r->e) : 0;
    if (!r->n_pieces[which] && !(r->n_pieces[which] = calloc((size_t)r->n_stages + 1, sizeof(int))))
        return -1;
    for (int i = 0; i < r->n_stages; i++) {
        r->n_pieces[which][i] = r->e->strategy->stages->pieces(r->e, i, n, &name, &node);
        *most = r->n_pieces[which][i] > *most ? r->n_pieces[which][i] : *most;
    }
    return 0;
}

replay *replay_new(engine *e, int lanes, int threads)
{
    const plan *p = e->p;
    replay *r = aligned_alloc(128, round_up(sizeof *r, 128));
    if (!r)
        return NULL;
    memset(r, 0, sizeof *r);
    r->e = e;
    r->n_threads = threads < e->n_workers ? threads : e->n_workers;
    r->n_stripes = e->shared.n_stripes;
    r->n_lanes = lanes;
    r->keeps = e->strategy->keeps_copy && e->strategy->keeps_copy(e);
    r->forth = calloc((size_t)p->n_nodes, sizeof *r->forth);
    r->back = calloc((size_t)p->n_nodes, sizeof *r->back);
    r->unwritten = calloc((size_t)e->n_workers, sizeof *r->unwritten);
    r->copy = calloc((size_t)e->n_workers, sizeof *r->copy);
    r->lane = calloc((size_t)lanes + 1, sizeof *r->lane);
    r->in = calloc((size_t)e->n_workers, sizeof *r->in);
    r->layer = calloc((size_t)p->n_nodes, sizeof *r->layer);
    r->vector = calloc((size_t)e->n_workers, sizeof *r->vector);
    r->other = calloc((size_t)e->n_workers, sizeof *r->other);
    r->users = calloc((size_t)e->n_workers + 1, 1);
    r->sequence = memory_zeros(((size_t)e->n_layers * (e->strategy->replicas ? (size_t)e->n_workers + 1 : 1) + 1) *
                               sizeof *r->sequence);
    r->progress = memory_zeros((size_t)e->n_workers * sizeof *r->progress);
    r->fate = memory_zeros((size_t)r->n_threads * sizeof *r->fate);
    int most = 0, missing = count_pieces(r, 0, e->batch, &most);
    missing |= course_new(&r->checked, e->n_workers, r->n_stripes, lanes, most);
    missing |= !r->forth | !r->back | !r->unwritten | !r->copy | !r->lane | !r->in | !r->layer | !r->sequence |
               !r->progress | !r->fate | !r->vector | !r->other | !r->users;
    for (int i = 0; !missing && i < e->n_workers; i++)
        missing = !e->worker[i] && !(e->worker[i] = worker_new(e, i));
    for (int i = 0; !missing && i < lanes; i++) {
        const size_t bytes = round_up(p->weight_size * sizeof(float) + 1, 4096);
        if (!(missing = !(r->lane[i] = aligned_alloc(4096, bytes))))
            memset(r->lane[i], 0, bytes);
    }
    if (missing) {
        replay_free(r);
        return NULL;
    }
    for (int i = 1; i < p->n_nodes; i++)
        if (p->node[i].g.weight_size) {
            r->layer[i] = r->n_forth;
            r->forth[r->n_forth++] = i;
        }
    for (int i = p->n_nodes - 1; i > 0; i--)
        if (p->node[i].g.weight_size && pass_learns(e, i))
            r->back[r->n_back++] = i;
    return r;
}

void replay_free(replay *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->e->n_workers; i++)
        if (r->e->worker[i]) { /* what it reads is about to go */
            if (r->begun)
                r->e->strategy->stages->end(r->e->worker[i]);
            r->e->worker[i]->reads = NULL;
            r->e->worker[i]->shared = &r->e->shared;
        }
    for (int i = 0; r->copy && i < r->e->n_workers; i++)
        free(r->copy[i]);
    for (int i = 0; r->lane && i < r->n_lanes; i++)
        free(r->lane[i]);
    course_free(&r->checked);
    free(r->in);
    free(r->layer);
    free(r->n_pieces[0]);
    free(r->n_pieces[1]);
    free(r->vector);
    free(r->other);
    free(r->users);
    free(r->sequence);
    free(r->progress);
    free(r->ticket);
    free(r->fate);
    free(r->forth);
    free(r->back);
    free(r->unwritten);
    free(r->copy);
    free(r->lane);
    free(r);
}

static int course_begin(course *c, const replay *r)
{
    uint8_t *gradients = c->memory;
    memset(gradients, 0, (size_t)r->e->n_workers * (size_t)r->n_stripes);
    for (int i = 0; i < r->e->n_workers; i++)
        c->of[i] = (walk){.gradient = gradients + (size_t)i * (size_t)r->n_stripes};
    memset(c->formed, 0, (size_t)r->n_lanes);
    memset(c->reduced, 0, (size_t)r->n_stripes);
    c->n_begun = c->round = c->n_apart = 0;
    c->n_formed = c->n_reduced = c->n_met = 0;
    c->stage = c->n_before = c->n_done = 0;
    free(c->begun);
    return (c->begun = calloc((size_t)r->n_steps + 1, 1)) ? 0 : -1;
}

/* The number of a weight vector that the first n workers train or the process has; -1: another one. */
static int vector_of(const replay *r, const shared_weights *s, int n)
{
    int found = s == &r->e->shared ? 0 : -1;
    for (int i = 0; i < n && found < 0; i++)
        if (r->e->worker[i]->shared == s)
            found = r->vector[i];
    return found;
}

static void add_user(replay *r, int vector) { r->users[vector] += r->users[vector] < 2; }

/* Gives every worker its weights, and finds out who shares which. */
static int take_weights(replay *r)
{
    engine *e = r->e;
    const replica_hooks *hooks = e->strategy->replicas;
    r->n_vectors = 1;
    memset(r->users, 0, (size_t)e->n_workers + 1);
    r->users[0] = 2;
    for (int i = 0; i < e->n_workers; i++) {
        if (hooks && hooks->begin(e->worker[i]))
            return -1;
        const int known = vector_of(r, e->worker[i]->shared, i);
        r->vector[i] = known < 0 ? r->n_vectors++ : known;
    }
    for (int i = 0; i < e->n_workers; i++) {
        shared_weights *other = hooks ? hooks->other(e->worker[i]) : NULL;
        r->other[i] = other ? vector_of(r, other, e->n_workers) : -1;
        add_user(r, r->vector[i]);
        if (other && !hooks->arrive)
            add_user(r, r->other[i]);
    }
    return 0;
}

int replay_begin(replay *r, const images *data, int64_t begin, int64_t end, float lr)
{
    engine *e = r->e;
    engine_begin(e, TRAIN, data, begin, end, lr, NULL);
    r->begin = begin;
    r->end = end;
    r->n_steps = (end - begin + e->batch - 1) / e->batch;
    for (int i = 0; i < e->n_workers; i++) {
        worker *w = e->worker[i];
        worker_begin(w);
        memset(w->pending, 0, (size_t)r->n_stripes * sizeof *w->pending);
        w->n_pending = 0;
        w->shared = &e->shared;
        w->reads = NULL;
        w->unwritten = NULL;
    }
    int most = 0; /* the last step has no more than the others */
    if (take_weights(r) || course_begin(&r->checked, r) ||
        count_pieces(r, 1, r->n_steps ? end - begin - (r->n_steps - 1) * e->batch : 0, &most))
        return -1;
    for (int i = 0; r->n_stages && !r->begun && i < e->n_workers; i++)
        e->strategy->stages->begin(e->worker[i]);
    r->begun = r->n_stages > 0;
    return 0;
}

static int64_t step_end(const replay *r, int64_t step)
{
    const int64_t end = r->begin + (step + 1) * r->e->batch;
    return end < r->end ? end : r->end;
}

static int lanes_of_step(const replay *r, int64_t step)
{
    const int64_t n = step_end(r, step) - (r->begin + step * r->e->batch);
    return n < r->n_lanes ? (int)n : r->n_lanes;
}

static int is_last(const replay *r, const place *v) { return v->at + r->e->chunk >= v->end; }
static int images_of(const replay *r, const place *v) { return is_last(r, v) ? (int)(v->end - v->at) : r->e->chunk; }

static place place_in(const replay *r, int64_t step, int lane)
{
    const int64_t begin = r->begin + step * r->e->batch, end = step_end(r, step);
    const int n = lane < 0 ? 1 : lanes_of_step(r, step), j = lane < 0 ? 0 : lane;
    const int64_t from = lane_begin(begin, end, n, j);
    return (place){.begin = from, .at = from, .end = lane_begin(begin, end, n, j + 1), .lane = lane};
}

/* Past the next of n layers: whether it was the last. */
static int next_layer(place *v, int n)
{
    if (++v->next < n)
        return 0;
    v->next = 0;
    return 1;
}

/* Past the next layer on the way back: whether the chunk is through. */
static int next_back(const replay *r, place *v)
{
    if (!next_layer(v, r->n_back))
        return 0;
    v->at += r->e->chunk;
    return 1;
}

static const char *begin_step(const replay *r, course *c, walk *v, int lane, uint32_t what)
{
    const int64_t step = lane < 0 ? what : c->round;
    if (v->stage != IDLE)
        return "the worker has not finished its step";
    if (v->met)
        return "the worker has not left the meeting";
    if (v->n_exchanged)
        return "the worker has not exchanged all its stripes";
    if (r->n_stages)
        return "this strategy's steps are made of pieces";
    if ((lane < 0) != (r->n_lanes == 0))
        return r->n_lanes ? "this strategy's steps are made of lanes" : "this strategy's steps have no lanes";
    if (step >= r->n_steps)
        return "the phase has fewer steps";
    if (lane < 0 && c->begun[step])
        return "the step has been begun before";
    if (lane >= lanes_of_step(r, step))
        return "the step has fewer lanes";
    if (lane >= 0 && c->formed[lane])
        return "the lane has been begun before";
    v->in = place_in(r, step, lane);
    v->stage = FORTH;
    v->copied = 0;
    if (!c->begun[step]) {
        c->begun[step] = 1;
        c->n_begun++;
    }
    if (lane >= 0)
        c->formed[lane] = 1;
    c->n_apart++;
    return NULL;
}

static const char *pass_back(const replay *r, course *c, walk *v, uint32_t node)
{
    if (v->stage != BACK || (int)node != r->back[v->in.next])
        return "it is not the worker's turn to back-propagate this layer";
    const int last = is_last(r, &v->in);
    int from, to;
    stripes_of(r->e, (int)node, &from, &to);
    for (int k = from; k < to && v->in.lane < 0; k++) {
        if (v->in.at == v->in.begin && v->gradient[k] & ANY)
            return "the layer's gradient of an earlier step has not been published";
        if (last) {
            v->gradient[k] |= r->e->strategy->publishes_later ? POSTPONED : FRESH;
            v->n_fresh += !r->e->strategy->publishes_later;
            v->n_left++;
        }
    }
    if (!next_back(r, &v->in))
        return NULL;
    v->stage = last ? IDLE : FORTH;
    if (last && v->in.lane >= 0) {
        c->formed[v->in.lane] = 2;
        c->n_formed++;
    }
    return NULL;
}

static const char *reduce(const replay *r, course *c, uint32_t stripe)
{
    if (r->n_lanes == 0)
        return "this strategy's steps have no lanes";
    if (c->round >= r->n_steps || c->n_formed < lanes_of_step(r, c->round))
        return "a lane of the step is missing";
    if (c->reduced[stripe])
        return "the stripe has been updated in this step before";
    c->reduced[stripe] = 1;
    if (++c->n_reduced == r->n_stripes) {
        memset(c->reduced, 0, (size_t)r->n_stripes);
        memset(c->formed, 0, (size_t)r->n_lanes);
        c->n_formed = c->n_reduced = 0;
        c->round++;
    }
    return NULL;
}

static int has_meetings(const replay *r) { return r->e->strategy->replicas && r->e->strategy->replicas->arrive; }

static const char *arrive(const replay *r, course *c, walk *v)
{
    if (!has_meetings(r))
        return "this strategy's workers do not meet";
    if (v->stage != IDLE || v->n_left)
        return "the worker has not finished its step";
    if (v->met || c->n_reduced)
        return "the meeting has begun";
    v->met = 1;
    c->n_met++;
    return NULL;
}

static const char *leave(const replay *r, course *c, walk *v)
{
    if (!v->met || c->n_reduced < r->n_stripes)
        return "the meeting is not over";
    v->met = 0;
    if (--c->n_met == 0) {
        memset(c->reduced, 0, (size_t)r->n_stripes);
        c->n_reduced = 0;
        c->n_apart = 0;
    }
    return NULL;
}

static const char *exchange(const replay *r, course *c, walk *v, int worker, uint32_t stripe)
{
    if (r->other[worker] < 0)
        return "the worker makes no exchanges";
    if (has_meetings(r)) {
        if (c->n_met < r->e->n_workers)
            return "a worker has not come to the meeting";
        if (!c->n_apart)
            return "nothing has happened since the last meeting";
        if (c->reduced[stripe])
            return "the stripe has been exchanged at this meeting before";
        c->reduced[stripe] = 1;
        c->n_reduced++;
        return NULL;
    }
    if (v->stage != IDLE)
        return "the worker has not finished its step";
    if (v->gradient[stripe] & EXCHANGED)
        return "the stripe has been exchanged before";
    v->gradient[stripe] |= EXCHANGED;
    if (++v->n_exchanged == r->n_stripes) {
        for (int k = 0; k < r->n_stripes; k++)
            v->gradient[k] &= (uint8_t)~EXCHANGED;
        v->n_exchanged = 0;
    }
    return NULL;
}

static const char *do_piece(const replay *r, course *c, uint32_t what)
{
    if (!r->n_stages)
        return "this strategy's steps have no pieces";
    if (c->round >= r->n_steps)
        return "the phase has fewer steps";
    const int n = r->n_pieces[c->round == r->n_steps - 1][c->stage];
    if (what < (uint32_t)c->n_before || what - (uint32_t)c->n_before >= (uint32_t)n)
        return "the piece is not one of the stage under way";
    uint8_t *done = &c->done[what - (uint32_t)c->n_before];
    if (*done)
        return "the piece has been done before";
    *done = 1;
    if (++c->n_done == n) {
        memset(c->done, 0, (size_t)n);
        c->n_done = 0;
        c->n_before += n;
        if (++c->stage == r->n_stages) {
            c->stage = c->n_before = 0;
            c->round++;
        }
    }
    return NULL;
}

/* Moves on by one event, or says why it is not possible. */
static const char *advance(const replay *r, course *c, event ev)
{
    const int kind = event_kind(ev);
    const uint32_t what = event_what(ev);
    if (event_worker(ev) >= r->e->n_workers)
        return "there is no such worker";
    walk *v = &c->of[event_worker(ev)];
    if ((kind == EVENT_PUBLISH || kind == EVENT_POSTPONE || kind == EVENT_REDUCE || kind == EVENT_EXCHANGE ||
         kind == EVENT_READ) &&
        what >= (uint32_t)r->n_stripes)
        return "there is no such stripe";
    if (v->n_fresh && kind != EVENT_PUBLISH && kind != EVENT_POSTPONE && kind != EVENT_READ)
        return "the worker has neither published nor postponed a stripe of its last layer";
    switch (kind) {
    case EVENT_STEP: return begin_step(r, c, v, -1, what);
    case EVENT_LANE: return what < (uint32_t)r->n_lanes ? begin_step(r, c, v, (int)what, 0) : "the step has fewer lanes";
    case EVENT_COPY:
        if (v->stage != FORTH || v->in.at != v->in.begin || v->in.next || v->copied || v->in.lane >= 0 || r->keeps)
            return "weights are copied at the beginning of a step";
        v->copied = 1;
        return NULL;
    case EVENT_FORWARD:
        if (v->stage != FORTH || (int)what != r->forth[v->in.next])
            return "it is not the worker's turn to pass this layer";
        if (r->keeps && v->n_kept < r->n_stripes)
            return "the worker has not read all stripes";
        if (next_layer(&v->in, r->n_forth))
            v->stage = BACK;
        return NULL;
    case EVENT_BACKWARD: return pass_back(r, c, v, what);
    case EVENT_PUBLISH:
        if (!(v->gradient[what] & ANY))
            return "the worker has no gradient for this stripe";
        v->n_fresh -= (v->gradient[what] & ANY) == FRESH;
        v->n_left--;
        v->gradient[what] &= (uint8_t)~ANY;
        return NULL;
    case EVENT_POSTPONE:
        if ((v->gradient[what] & ANY) != FRESH)
            return "the worker has no fresh gradient for this stripe";
        v->gradient[what] ^= FRESH ^ POSTPONED;
        v->n_fresh--;
        return NULL;
    case EVENT_REDUCE: return reduce(r, c, what);
    case EVENT_ARRIVE: return arrive(r, c, v);
    case EVENT_EXCHANGE: return exchange(r, c, v, event_worker(ev), what);
    case EVENT_LEAVE: return leave(r, c, v);
    case EVENT_PIECE: return do_piece(r, c, what);
    case EVENT_READ:
        if (!r->keeps)
            return "this strategy's workers keep no copies";
        v->n_kept += !(v->gradient[what] & KEPT);
        v->gradient[what] |= KEPT;
        return NULL;
    }
    return "there is no such event";
}

static void forget_counts(replay *r)
{
    memset(r->sequence, 0, (size_t)r->n_vectors * (size_t)r->n_forth * sizeof *r->sequence);
    r->arrived = r->n_arrivals = 0;
    r->n_run = r->n_checked = r->stage_at = 0;
    memset(r->progress, 0, (size_t)r->e->n_workers * sizeof *r->progress);
}

/* One more write of a layer; how many accesses come before it. */
static uint32_t note_write(replay *r, int at)
{
    r->sequence[at].writes++;
    return r->sequence[at].all++;
}

/* Where in the steps the executor is. */
typedef struct {
    int64_t round;
    int stage, n_before;
} position;

static position where(const course *c) { return (position){c->round, c->stage, c->n_before}; }

/* Notes what the event has to wait for; it has been checked, and been possible at `from`. */
static void note_access(replay *r, event ev, position from, ticket *t)
{
    const int kind = event_kind(ev), what = (int)event_what(ev), id = event_worker(ev), own = r->vector[id];
    const int reads = kind == EVENT_FORWARD || kind == EVENT_BACKWARD;
    *t = (ticket){.turn = r->progress[id].done++, .access = APART, .step = (uint32_t)from.round};
    if (kind == EVENT_PIECE) {
        t->at = from.stage;
        t->second = what - from.n_before;
        t->after = r->stage_at;
        r->n_checked++;
        if (r->checked.n_done == 0)
            r->stage_at = r->n_checked;
    } else if (kind == EVENT_COPY || kind == EVENT_LEAVE) {
        t->access = READS_ALL;
        t->at = (kind == EVENT_COPY ? own : 0) * r->n_forth;
        for (int l = t->at; l < t->at + r->n_forth; l++) {
            t->after += r->sequence[l].writes;
            r->sequence[l].all++;
        }
    } else if (kind == EVENT_EXCHANGE) {
        const int layer = r->e->stripe[what].layer;
        t->step = r->n_arrivals;
        t->access = WRITES;
        t->at = r->other[id] * r->n_forth + layer;
        t->after = note_write(r, t->at);
        if (r->users[own] > 1 && own != r->other[id]) {
            t->access = WRITES_TWO;
            t->second = own * r->n_forth + layer;
            t->also = note_write(r, t->second);
        }
    } else if (kind == EVENT_ARRIVE) {
        r->n_arrivals++;
    } else if (r->users[own] < 2 || (reads && (r->keeps || r->checked.of[id].copied))) {
        return;
    } else if (reads || kind == EVENT_READ) {
        t->access = READS;
        t->at = own * r->n_forth + (reads ? r->layer[what] : r->e->stripe[what].layer);
        t->after = r->sequence[t->at].writes;
        r->sequence[t->at].all++;
    } else if (kind == EVENT_PUBLISH || kind == EVENT_REDUCE) {
        t->access = WRITES;
        t->at = own * r->n_forth + r->e->stripe[what].layer;
        t->after = note_write(r, t->at);
    }
}

static int all_done(const replay *r, int at, uint32_t after)
{
    return __atomic_load_n(&r->sequence[at].all, __ATOMIC_ACQUIRE) == after;
}

/* Whether everything that the event waits for is done. What comes after it in the order waits for it in turn, so that a count
 * cannot get past what it waits for. */
static int may_run(const replay *r, event ev, const ticket *t)
{
    uint32_t done = 0;
    if (__atomic_load_n(&r->progress[event_worker(ev)].done, __ATOMIC_ACQUIRE) != t->turn)
        return 0;
    if (event_kind(ev) == EVENT_EXCHANGE && has_meetings(r) && __atomic_load_n(&r->arrived, __ATOMIC_ACQUIRE) != t->step)
        return 0;
    if (event_kind(ev) == EVENT_PIECE) /* this stage's others count too, but they wait for the same */
        return __atomic_load_n(&r->n_run, __ATOMIC_ACQUIRE) >= t->after;
    switch (t->access) {
    case READS: return __atomic_load_n(&r->sequence[t->at].writes, __ATOMIC_ACQUIRE) == t->after;
    case WRITES_TWO: return all_done(r, t->at, t->after) && all_done(r, t->second, t->also);
    case WRITES: return all_done(r, t->at, t->after);
    case READS_ALL:
        for (int l = t->at; l < t->at + r->n_forth; l++)
            done += __atomic_load_n(&r->sequence[l].writes, __ATOMIC_ACQUIRE);
        return done == t->after;
    }
    return 1;
}

static void has_written(replay *r, int at)
{
    __atomic_store_n(&r->sequence[at].writes, r->sequence[at].writes + 1, __ATOMIC_RELEASE); /* nobody else writes now */
    __atomic_fetch_add(&r->sequence[at].all, 1, __ATOMIC_ACQ_REL);
}

static void has_met_weights(replay *r, event ev, const ticket *t)
{
    if (event_kind(ev) == EVENT_ARRIVE)
        __atomic_fetch_add(&r->arrived, 1, __ATOMIC_ACQ_REL);
    if (event_kind(ev) == EVENT_PIECE)
        __atomic_fetch_add(&r->n_run, 1, __ATOMIC_ACQ_REL);
    if (t->access == WRITES || t->access == WRITES_TWO)
        has_written(r, t->at);
    if (t->access == WRITES_TWO)
        has_written(r, t->second);
    for (int l = t->at; l < t->at + (t->access == READS_ALL ? r->n_forth : t->access == READS); l++)
        __atomic_fetch_add(&r->sequence[l].all, 1, __ATOMIC_ACQ_REL);
}

/* The worker's room for a copy of the weights, made when first needed. */
static float *room_for_copy(replay *r, const worker *w)
{
    float **copy = &r->copy[w->id];
    return *copy ? *copy : (*copy = aligned_alloc(64, round_up(r->e->p->weight_size * sizeof(float) + 1, 64)));
}

/* Whether the pass takes so much longer than a copy of the layer's weights that other threads should not wait for it: each
 * weight is used at many places. */
static int worth_a_copy(const replay *r, int node)
{
    enum { MANY = 16 };
    const shape s = r->e->p->node[node].g.out;
    return s.h * s.w >= MANY;
}

static int copy_layer(replay *r, worker *w, int node, int note_versions)
{
    float *copy = room_for_copy(r, w);
    int from, to;
    stripes_of(r->e, node, &from, &to);
    for (int k = from; copy && k < to; k++) {
        if (note_versions)
            w->seen[k] = stripe_version(&w->shared->state[k]);
        shared_copy(w->shared, w->shared->stripe[k].at, w->shared->stripe[k].size, copy);
    }
    w->reads = copy;
    return copy ? DONE : NO_MEMORY;
}

/* Nodes [from, to) forward. */
static void go_forth(replay *r, worker *w, const place *v, int from, int to)
{
    const int n = images_of(r, v);
    for (int i = from; i < to; i++)
        pass_forward_node(w, i, n, w->hooks && !w->reads && v->at == v->begin);
}

static void load(replay *r, worker *w, const place *v)
{
    feed_load(w, v->at, images_of(r, v));
    go_forth(r, w, v, 1, r->forth[0]);
}

static void go_back(replay *r, worker *w, const place *v)
{
    const engine *e = r->e;
    const int node = r->back[v->next], above = v->next ? r->back[v->next - 1] : e->p->n_nodes;
    const int last = is_last(r, v), n = images_of(r, v);
    float *own = w->dw;
    if (v->lane >= 0)
        w->dw = r->lane[v->lane];
    call *c = &r->unwritten[w->id];
    for (int i = above - 1; i >= node; i--)
        if (pass_learns(e, i))
            pass_backward_node(w, i, n, v->at == v->begin, last, c);
    w->dw = own;
    if (last && w->hooks) {
        int from, to;
        bounds_clip_gradient(e, node, w->dw);
        stripes_of(e, node, &from, &to);
        memcpy(w->version + from, w->seen + from, (size_t)(to - from) * sizeof *w->version);
    }
    if (v->next == r->n_back - 1)
        w->count.images += n;
}

static void reduce_lanes(replay *r, worker *w, int k, int64_t step)
{
    const engine *e = r->e;
    const stripe *s = &e->stripe[k];
    memcpy(w->dw + s->at, r->lane[0] + s->at, s->size * sizeof *w->dw);
    for (int j = 1; j < lanes_of_step(r, step); j++)
        e->p->isa->add(s->size, w->dw + s->at, r->lane[j] + s->at);
    w->version[k] = stripe_version(&w->shared->state[k]);
    weights_publish(w, k);
}

/* Runs one event; *lost: the image whose loss is not finite, if it returns DIVERGED. */
static int perform(replay *r, event ev, const ticket *t, int64_t *lost)
{
    engine *e = r->e;
    worker *w = e->worker[event_worker(ev)];
    place *v = &r->in[w->id];
    const int kind = event_kind(ev), what = (int)event_what(ev);
    if (kind != EVENT_PUBLISH && kind != EVENT_POSTPONE && kind != EVENT_READ)
        w->unwritten = NULL;
    switch (kind) {
    case EVENT_STEP:
    case EVENT_LANE: {
        const int64_t step = kind == EVENT_STEP ? (int64_t)what : (int64_t)t->step;
        *v = place_in(r, step, kind == EVENT_STEP ? -1 : what);
        w->hooks = kind == EVENT_STEP;
        w->scale = w->share = 1.f / (float)(step_end(r, step) - (r->begin + step * e->batch));
        w->reads = r->keeps ? w->strategy_data : NULL;
        if (kind == EVENT_STEP || what == 0) /* of a step's lanes one counts */
            __atomic_fetch_add(&e->next, e->batch, __ATOMIC_RELAXED);
        load(r, w, v);
        break;
    }
    case EVENT_COPY:
        if (!room_for_copy(r, w))
            return NO_MEMORY;
        weights_read_all(w, r->copy[w->id]);
        break;
    case EVENT_FORWARD: {
        const int last = v->next == r->n_forth - 1;
        go_forth(r, w, v, what, last ? e->p->n_nodes : r->forth[v->next + 1]);
        const int found = last ? pass_loss(w, images_of(r, v), 1) : 0;
        next_layer(v, r->n_forth);
        if (found) {
            *lost = v->at + found - 1;
            return DIVERGED;
        }
        break;
    }
    case EVENT_BACKWARD: {
        const int last = is_last(r, v);
        go_back(r, w, v);
        if (next_back(r, v) && !last)
            load(r, w, v);
        break;
    }
    case EVENT_PUBLISH:
        weights_publish(w, what);
        w->n_pending -= w->pending[what];
        w->pending[what] = 0;
        break;
    case EVENT_POSTPONE: weights_postpone(w, what); break;
    case EVENT_REDUCE: reduce_lanes(r, w, what, t->step); break;
    case EVENT_ARRIVE: e->strategy->replicas->arrive(w); break;
    case EVENT_EXCHANGE: e->strategy->replicas->exchange(w, what); break;
    case EVENT_LEAVE: e->strategy->replicas->leave(w); break;
    case EVENT_PIECE: {
        const int64_t begin = r->begin + (int64_t)t->step * e->batch;
        w->hooks = 0;
        if (what == 0) /* of a step's pieces one counts */
            __atomic_fetch_add(&e->next, e->batch, __ATOMIC_RELAXED);
        const int64_t found = e->strategy->stages->run(w, t->at, t->second, begin, step_end(r, t->step));
        if (found) {
            *lost = begin + found - 1;
            return DIVERGED;
        }
        break;
    }
    case EVENT_READ: weights_read_stripe(w, what, w->strategy_data); break;
    }
    return DONE;
}

/* Runs an event as one of several threads do; 0 if it fails: then none that comes later in the order is taken any more. */
static int run_one(replay *r, struct fate *mine, int64_t at)
{
    const event ev = r->events[at];
    const ticket *t = &r->ticket[at];
    worker *w = r->e->worker[event_worker(ev)];
    const place *v = &r->in[w->id];
    /* a lane's gradient, which EVENT_REDUCE reads, must be there when the layer is let go */
    const int forth = event_kind(ev) == EVENT_FORWARD, back = event_kind(ev) == EVENT_BACKWARD;
    const int copies = t->access == READS && (forth || (back && v->lane < 0)) && worth_a_copy(r, (int)event_what(ev));
    int status = DONE;
    if (copies) {
        status = copy_layer(r, w, (int)event_what(ev), w->hooks && forth && v->at == v->begin);
        has_met_weights(r, ev, t);
    }
    if (status == DONE)
        status = perform(r, ev, t, &mine->image);
    if (copies)
        w->reads = NULL;
    if (status == DONE) {
        if (!copies)
            has_met_weights(r, ev, t);
        __atomic_store_n(&r->progress[w->id].done, t->turn + 1, __ATOMIC_RELEASE);
        return 1;
    }
    mine->status = status;
    mine->at = at;
    int64_t limit = __atomic_load_n(&r->limit, __ATOMIC_RELAXED);
    while (at < limit && !__atomic_compare_exchange_n(&r->limit, &limit, at, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return 0;
}

/* Whoever is free takes the next event. The first of all that have not been run has nothing to wait for, and somebody has taken
 * it, so somebody always gets on. */
static void run_share(void *arg, int id)
{
    replay *r = arg;
    int64_t at;
    while ((at = __atomic_fetch_add(&r->next, 1, __ATOMIC_RELAXED)) < __atomic_load_n(&r->limit, __ATOMIC_RELAXED)) {
        for (int round = 0; !may_run(r, r->events[at], &r->ticket[at]); round++) {
            if (!team_goes_on(r->e) || at >= __atomic_load_n(&r->limit, __ATOMIC_RELAXED))
                return;
            wait_round(round);
        }
        if (!team_goes_on(r->e) || !run_one(r, &r->fate[id], at))
            return;
    }
}

static int run_alone(replay *r)
{
    int status = DONE;
    const float_mode old = flush_denormals();
    for (int64_t i = 0; i < r->n_events && status == DONE; i++)
        status = team_goes_on(r->e) ? perform(r, r->events[i], &r->ticket[i], &r->e->failed_at) : STOPPED;
    restore_denormals(old);
    return status;
}

static int run_together(replay *r)
{
    forget_counts(r);
    r->next = 0;
    r->limit = r->n_events;
    for (int i = 0; i < r->n_threads; i++)
        r->fate[i].status = DONE;
    if (run_team(r->n_threads, run_share, r) < r->n_threads)
        return NO_TEAM;
    for (int i = 0; i < r->n_threads; i++)
        if (r->fate[i].status != DONE && r->fate[i].at == r->limit) {
            r->e->failed_at = r->fate[i].image;
            return r->fate[i].status;
        }
    return team_goes_on(r->e) ? DONE : STOPPED;
}

int replay_run(replay *r, const event *events, int64_t n, int64_t *at, const char **reason)
{
    if (!r->n_back) {
        *at = 0;
        *reason = "the network has no weights to train";
        return n ? -1 : DONE;
    }
    if (n > r->room) {
        free(r->ticket);
        r->ticket = malloc((size_t)n * sizeof *r->ticket);
        r->room = r->ticket ? n : 0;
    }
    if (!r->ticket)
        return NO_MEMORY;
    forget_counts(r);
    for (*at = 0; *at < n; ++*at) {
        const position from = where(&r->checked); /* the last REDUCE or PIECE of a step moves it on */
        if ((*reason = advance(r, &r->checked, events[*at])))
            return -1;
        note_access(r, events[*at], from, &r->ticket[*at]);
    }
    r->events = events;
    r->n_events = n;
    return r->n_threads > 1 ? run_together(r) : run_alone(r);
}

const char *replay_end(replay *r)
{
    const course *c = &r->checked;
    engine_merge(r->e, r->e->n_workers);
    if (r->e->strategy->replicas && r->e->strategy->phase_end)
        r->e->strategy->phase_end(r->e);
    if (r->n_lanes || r->n_stages ? c->round < r->n_steps : c->n_begun < r->n_steps)
        return "not every image has been passed";
    for (int i = 0; i < r->e->n_workers; i++)
        if (c->of[i].stage != IDLE)
            return "a worker has not finished its step";
        else if (c->of[i].n_left)
            return "a worker has not published all its gradients";
        else if (c->of[i].met || c->of[i].n_exchanged)
            return "a worker has not finished its exchange";
    if (has_meetings(r) && c->n_apart)
        return "workers have not met after their last steps";
    return NULL;
}
