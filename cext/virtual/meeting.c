/* Meetings; see meeting.h. */
#include "meeting.h"

#include <math.h>

static void wait(vclock *c, actor *a) { (void)c, (void)a; }

void meeting_join(vclock *c, actor *a, action *then, void (*over)(vclock *c))
{
    a->next = wait;
    a->then = then;
    a->since = c->now;
    actor_schedule(c, a, INFINITY);
    if (++c->arrived < c->p.n_workers)
        return;
    c->arrived = 0;
    if (over)
        over(c);
    for (int id = 0; id < c->p.n_workers; id++) {
        actor *b = &c->actor[id];
        c->count.waiting += c->now - b->since;
        b->next = b->then;
        b->at = 0;
        actor_schedule(c, b, c->now);
    }
}
