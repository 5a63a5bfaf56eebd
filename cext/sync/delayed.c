/* Delayed SGD in strict turn: with p workers, worker i makes the updates i, i + p, i + 2p, ...
 *
 * Whoever has the turn publishes its gradient and, still holding it, copies the weights from which it forms its next one. So
 * every gradient is p - 1 updates old when it is applied (the first ones: as many as were made), and nothing depends on
 * timing. A gradient formed when the phase is stopped is thrown away: only whoever has the turn decides about stopping. */
#include "sync.h"

#include <stdlib.h>
#include <string.h>

enum { NO_TURN = -1 };

typedef struct {
    _Alignas(128) int64_t turn; /* the number of the next update; NO_TURN: there will be none */
    char apart[120];
} delayed;

static void close(engine *e) { free(e->sync); }

static int open(engine *e) { return (e->sync = aligned_alloc(128, sizeof(delayed))) ? 0 : -1; }

/* The worker's copy of the weights. A single one updates what it reads. */
static size_t data_size(const engine *e) { return e->n_workers > 1 ? e->p->weight_size : 0; }

/* Returns 0 if the turn will never come. */
static int wait_for_turn(worker *w, int64_t t)
{
    const engine *e = w->e;
    const delayed *s = e->sync;
    int64_t turn;
    for (int i = 0; (turn = __atomic_load_n(&s->turn, __ATOMIC_ACQUIRE)) != t; i++) {
        if (turn == NO_TURN || __atomic_load_n(&e->failure, __ATOMIC_RELAXED))
            break;
        wait_begins(w);
        if (i < 1000)
            wait_briefly();
        else
            wait_for_core();
    }
    wait_ends(w);
    return turn == t;
}

static void update_and_copy(worker *w)
{
    for (int i = 0, from, to; i < unit_count(w->e); i++) {
        unit_stripes(w->e, i, &from, &to);
        memcpy(w->version + from, w->seen + from, (size_t)(to - from) * sizeof *w->version);
        unit_publish(w, i);
        for (int k = from; k < to; k++) {
            w->seen[k] = stripe_version(&w->shared->state[k]);
            shared_copy(w->shared, w->shared->stripe[k].at, w->shared->stripe[k].size, w->strategy_data);
        }
    }
}

static void train(worker *w)
{
    engine *e = w->e;
    delayed *s = e->sync;
    const int64_t from = __atomic_load_n(&e->next, __ATOMIC_RELAXED), batch = e->batch;
    int64_t begin, end;
    if (e->n_workers == 1) {
        while (step_pick(w, &begin, &end) && !step_train(w, begin, end))
            ;
        return;
    }
    weights_read_all(w, w->strategy_data);
    if (w->id == 0)
        s->turn = team_goes_on(e) ? 0 : NO_TURN;
    if (team_meet(w))
        return;
    for (int64_t t = w->id; (begin = from + t * batch) < e->end; t += e->n_workers) {
        const tally before = {.images = w->count.images, .errors = w->count.errors, .loss = w->count.loss};
        end = begin + batch < e->end ? begin + batch : e->end;
        if (pass_gradient(w, begin, end, 1.f / (float)(end - begin), w->dw))
            return;
        if (!wait_for_turn(w, t)) {
            w->count.images = before.images;
            w->count.errors = before.errors;
            w->count.loss = before.loss;
            return;
        }
        update_and_copy(w);
        __atomic_store_n(&e->next, end, __ATOMIC_RELAXED);
        __atomic_store_n(&s->turn, team_goes_on(e) ? t + 1 : NO_TURN, __ATOMIC_RELEASE);
    }
}

/* Of a single worker. */
static void layer_done(worker *w, int node, int from, int to)
{
    (void)node;
    for (int k = from; k < to; k++)
        weights_publish(w, k);
}

const strategy sync_delayed = {
    .name = "delayed",
    .open = open,
    .close = close,
    .data_size = data_size,
    .train = train,
    .layer_done = layer_done,
};
