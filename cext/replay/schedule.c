/* What events wait for; see schedule.h. */
#include "schedule.h"

#include "engine/memory.h"

#include <stdlib.h>
#include <string.h>

int schedule_open(schedule *s, const layout *l)
{
    const engine *e = l->e;
    const size_t vectors = e->strategy->replicas ? (size_t)e->n_workers + 1 : 1;
    memset(s, 0, sizeof *s);
    s->l = l;
    s->layer = memory_zeros(((size_t)e->n_layers * vectors + 1) * sizeof *s->layer);
    s->worker = memory_zeros((size_t)e->n_workers * sizeof *s->worker);
    return s->layer && s->worker ? 0 : -1;
}

void schedule_close(schedule *s)
{
    free(s->layer);
    free(s->worker);
}

void schedule_reset(schedule *s)
{
    const layout *l = s->l;
    memset(s->layer, 0, (size_t)l->n_vectors * (size_t)l->n_forward * sizeof *s->layer);
    memset(s->worker, 0, (size_t)l->e->n_workers * sizeof *s->worker);
    s->arrived = s->n_arrivals = 0;
    s->n_run = s->n_checked = s->stage_at = 0;
}

/* One more write of a layer; how many accesses come before it. */
static uint32_t note_write(schedule *s, int at)
{
    s->layer[at].writes++;
    return s->layer[at].all++;
}

void schedule_note(schedule *s, const order *o, event ev, order_position from, ticket *t)
{
    const layout *l = s->l;
    const int kind = event_kind(ev), what = (int)event_what(ev), id = event_worker(ev), vector = l->vector[id];
    const int reads = kind == EVENT_FORWARD || kind == EVENT_BACKWARD, n = l->n_forward;
    *t = (ticket){.turn = s->worker[id].done++, .access = APART, .step = (uint32_t)from.round};
    if (kind == EVENT_PIECE) {
        t->at = from.stage;
        t->second = what - from.n_before;
        t->after = s->stage_at;
        s->n_checked++;
        if (o->n_done == 0)
            s->stage_at = s->n_checked;
    } else if (kind == EVENT_COPY || kind == EVENT_LEAVE) {
        t->access = READS_ALL;
        t->at = (kind == EVENT_COPY ? vector : 0) * n;
        for (int i = t->at; i < t->at + n; i++) {
            t->after += s->layer[i].writes;
            s->layer[i].all++;
        }
    } else if (kind == EVENT_EXCHANGE) {
        const int layer = l->e->stripe[what].layer;
        t->step = s->n_arrivals;
        t->access = WRITES;
        t->at = l->other[id] * n + layer;
        t->after = note_write(s, t->at);
        if (l->users[vector] > 1 && vector != l->other[id]) {
            t->access = WRITES_TWO;
            t->second = vector * n + layer;
            t->also = note_write(s, t->second);
        }
    } else if (kind == EVENT_ARRIVE) {
        s->n_arrivals++;
    } else if (l->users[vector] < 2 || (reads && (l->keeps_copy || o->of[id].copied))) {
        return;
    } else if (reads || kind == EVENT_READ) {
        t->access = READS;
        t->at = vector * n + (reads ? l->layer[what] : l->e->stripe[what].layer);
        t->after = s->layer[t->at].writes;
        s->layer[t->at].all++;
    } else if (kind == EVENT_PUBLISH || kind == EVENT_REDUCE) {
        t->access = WRITES;
        t->at = vector * n + l->e->stripe[what].layer;
        t->after = note_write(s, t->at);
    }
}

static int all_done(const schedule *s, int at, uint32_t after)
{
    return __atomic_load_n(&s->layer[at].all, __ATOMIC_ACQUIRE) == after;
}

/* What comes after an event in the order waits for it in turn, so that a count cannot get past what it waits for. */
int schedule_ready(const schedule *s, event ev, const ticket *t)
{
    uint32_t done = 0;
    if (__atomic_load_n(&s->worker[event_worker(ev)].done, __ATOMIC_ACQUIRE) != t->turn)
        return 0;
    if (event_kind(ev) == EVENT_EXCHANGE && layout_has_meetings(s->l) &&
        __atomic_load_n(&s->arrived, __ATOMIC_ACQUIRE) != t->step)
        return 0;
    if (event_kind(ev) == EVENT_PIECE) /* this stage's others count too, but they wait for the same */
        return __atomic_load_n(&s->n_run, __ATOMIC_ACQUIRE) >= t->after;
    switch (t->access) {
    case READS: return __atomic_load_n(&s->layer[t->at].writes, __ATOMIC_ACQUIRE) == t->after;
    case WRITES_TWO: return all_done(s, t->at, t->after) && all_done(s, t->second, t->also);
    case WRITES: return all_done(s, t->at, t->after);
    case READS_ALL:
        for (int i = t->at; i < t->at + s->l->n_forward; i++)
            done += __atomic_load_n(&s->layer[i].writes, __ATOMIC_ACQUIRE);
        return done == t->after;
    }
    return 1;
}

static void write_over(schedule *s, int at)
{
    __atomic_store_n(&s->layer[at].writes, s->layer[at].writes + 1, __ATOMIC_RELEASE); /* nobody else writes now */
    __atomic_fetch_add(&s->layer[at].all, 1, __ATOMIC_ACQ_REL);
}

void schedule_access_over(schedule *s, event ev, const ticket *t)
{
    if (event_kind(ev) == EVENT_ARRIVE)
        __atomic_fetch_add(&s->arrived, 1, __ATOMIC_ACQ_REL);
    if (event_kind(ev) == EVENT_PIECE)
        __atomic_fetch_add(&s->n_run, 1, __ATOMIC_ACQ_REL);
    if (t->access == WRITES || t->access == WRITES_TWO)
        write_over(s, t->at);
    if (t->access == WRITES_TWO)
        write_over(s, t->second);
    for (int i = t->at; i < t->at + (t->access == READS_ALL ? s->l->n_forward : t->access == READS); i++)
        __atomic_fetch_add(&s->layer[i].all, 1, __ATOMIC_ACQ_REL);
}

void schedule_done(schedule *s, event ev, const ticket *t)
{
    __atomic_store_n(&s->worker[event_worker(ev)].done, t->turn + 1, __ATOMIC_RELEASE);
}
