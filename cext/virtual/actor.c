/* Whose action is next: a heap by time, then by number; see actor.h. */
#include "actor.h"

static int earlier(const vclock *c, double time, int id, int at)
{
    return time < c->heap[at].time || (time == c->heap[at].time && id < c->heap[at].id);
}

static void put(vclock *c, int at, double time, int id)
{
    c->heap[at].time = time;
    c->heap[at].id = id;
    c->actor[id].place = at;
}

static void settle_heap(vclock *c, int at, double time, int id)
{
    for (int up; at && earlier(c, time, id, up = (at - 1) / 2); at = up)
        put(c, at, c->heap[up].time, c->heap[up].id);
    for (int child; (child = 2 * at + 1) < c->n_heap; at = child) {
        if (child + 1 < c->n_heap && earlier(c, c->heap[child + 1].time, c->heap[child + 1].id, child))
            child++;
        if (earlier(c, time, id, child))
            break;
        put(c, at, c->heap[child].time, c->heap[child].id);
    }
    put(c, at, time, id);
}

void actor_schedule(vclock *c, actor *a, double time) { settle_heap(c, a->place, time, a->id); }

void actor_gather(vclock *c)
{
    for (int id = 0; id < c->p.n_workers; id++)
        put(c, id, c->now, id);
    c->n_heap = c->p.n_workers;
}

void actor_remove(vclock *c, actor *a)
{
    const double time = c->heap[--c->n_heap].time;
    const int last = c->heap[c->n_heap].id, at = a->place;
    put(c, at, time, last);
    if (c->n_heap && last != a->id)
        settle_heap(c, at, time, last);
}
