/* The executor of events: checks them, then runs them one after the other or in several threads; see replay.h. */
#include "engine/threads.h"

#include "replay.h"

#include "order.h"
#include "perform.h"
#include "schedule.h"

#include "engine/memory.h"
#include "engine/phase.h"
#include "engine/team.h"
#include "engine/wait.h"

#include <stdlib.h>
#include <string.h>

/* How the events of a thread have ended, the thread's own lines. */
typedef struct {
    _Alignas(128) int status;
    int64_t at, image; /* of the event that failed first; where its loss is not finite */
} outcome_of_thread;

struct replay {
    engine *e;
    layout layout;
    order order;
    performer performer;
    int n_threads;
    int stages_begun; /* stage_hooks.begin has been called */
    /* of the events under way */
    const event *events;
    ticket *ticket;
    int64_t n_events, room;
    outcome_of_thread *outcome; /* per thread */
    schedule schedule;
    _Alignas(128) int64_t next;  /* event that no thread has taken */
    _Alignas(128) int64_t limit; /* events from there on are not run: one has failed, or there are no more */
};

replay *replay_new(engine *e, int lanes, int threads)
{
    replay *r = aligned_alloc(128, round_up(sizeof *r, 128));
    if (!r)
        return NULL;
    memset(r, 0, sizeof *r);
    r->e = e;
    r->n_threads = threads < e->n_workers ? threads : e->n_workers;
    r->outcome = memory_zeros((size_t)r->n_threads * sizeof *r->outcome);
    if (!r->outcome || layout_open(&r->layout, e, lanes) || order_open(&r->order, &r->layout) ||
        schedule_open(&r->schedule, &r->layout) || perform_open(&r->performer, &r->layout)) {
        replay_free(r);
        return NULL;
    }
    return r;
}

void replay_free(replay *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->e->n_workers; i++)
        if (r->e->worker[i]) { /* what it reads is about to go */
            if (r->stages_begun)
                r->e->strategy->stages->end(r->e->worker[i]);
            r->e->worker[i]->reads = NULL;
            r->e->worker[i]->shared = &r->e->shared;
        }
    perform_close(&r->performer);
    schedule_close(&r->schedule);
    order_close(&r->order);
    layout_close(&r->layout);
    free(r->ticket);
    free(r->outcome);
    free(r);
}

int replay_begin(replay *r, const images *data, int64_t begin, int64_t end, float lr)
{
    engine *e = r->e;
    engine_begin(e, TRAIN, data, begin, end, lr, NULL);
    for (int i = 0; i < e->n_workers; i++) {
        worker *w = e->worker[i];
        worker_begin(w);
        memset(w->pending, 0, (size_t)e->shared.n_stripes * sizeof *w->pending);
        w->n_pending = 0;
        w->shared = &e->shared;
        w->reads = NULL;
        w->unwritten = NULL;
    }
    if (layout_begin(&r->layout, begin, end) || order_begin(&r->order))
        return -1;
    for (int i = 0; r->layout.n_stages && !r->stages_begun && i < e->n_workers; i++)
        e->strategy->stages->begin(e->worker[i]);
    r->stages_begun = r->layout.n_stages > 0;
    return 0;
}

/* Runs an event as one of several threads do; 0 if it fails: then none that comes later in the order is taken any more. */
static int run_one(replay *r, outcome_of_thread *mine, int64_t at)
{
    const event ev = r->events[at];
    const ticket *t = &r->ticket[at];
    const int copies = perform_wants_copy(&r->performer, ev, t);
    int status = DONE;
    if (copies) {
        status = perform_copy_layer(&r->performer, ev);
        schedule_access_over(&r->schedule, ev, t);
    }
    if (status == DONE)
        status = perform_event(&r->performer, ev, t, &mine->image);
    if (copies)
        r->e->worker[event_worker(ev)]->reads = NULL;
    if (status == DONE) {
        if (!copies)
            schedule_access_over(&r->schedule, ev, t);
        schedule_done(&r->schedule, ev, t);
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
        for (int round = 0; !schedule_ready(&r->schedule, r->events[at], &r->ticket[at]); round++) {
            if (!team_goes_on(r->e) || at >= __atomic_load_n(&r->limit, __ATOMIC_RELAXED))
                return;
            wait_round(round);
        }
        if (!team_goes_on(r->e) || !run_one(r, &r->outcome[id], at))
            return;
    }
}

static int run_alone(replay *r)
{
    engine *e = r->e;
    int status = DONE;
    const float_mode old = flush_denormals();
    for (int64_t i = 0; i < r->n_events && status == DONE; i++)
        status = team_goes_on(e) ? perform_event(&r->performer, r->events[i], &r->ticket[i], &e->failed_at) : STOPPED;
    restore_denormals(old);
    return status;
}

static int run_together(replay *r)
{
    schedule_reset(&r->schedule);
    r->next = 0;
    r->limit = r->n_events;
    for (int i = 0; i < r->n_threads; i++)
        r->outcome[i].status = DONE;
    if (threads_run(r->n_threads, run_share, r) < r->n_threads)
        return NO_TEAM;
    for (int i = 0; i < r->n_threads; i++)
        if (r->outcome[i].status != DONE && r->outcome[i].at == r->limit) {
            r->e->failed_at = r->outcome[i].image;
            return r->outcome[i].status;
        }
    return team_goes_on(r->e) ? DONE : STOPPED;
}

int replay_run(replay *r, const event *events, int64_t n, int64_t *at, const char **reason)
{
    if (!r->layout.n_backward) {
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
    schedule_reset(&r->schedule);
    for (*at = 0; *at < n; ++*at) {
        const order_position from = order_where(&r->order); /* the last REDUCE or PIECE of a step moves it on */
        if ((*reason = order_advance(&r->order, events[*at])))
            return -1;
        schedule_note(&r->schedule, &r->order, events[*at], from, &r->ticket[*at]);
    }
    r->events = events;
    r->n_events = n;
    return r->n_threads > 1 ? run_together(r) : run_alone(r);
}

const char *replay_end(replay *r)
{
    const strategy *s = r->e->strategy;
    engine_merge(r->e, r->e->n_workers);
    if (s->replicas && s->phase_end)
        s->phase_end(r->e);
    return order_missing(&r->order);
}
