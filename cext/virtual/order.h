/* What a strategy's file in orders/ provides: when its workers meet the weights. For these files and this room. */
#ifndef CHAOS_VIRTUAL_ORDER_H
#define CHAOS_VIRTUAL_ORDER_H

#include "parts.h"

typedef struct vclock vclock;
typedef struct actor actor; /* a virtual worker; actor.h */

/* What a worker does at one moment: it sets actor.next, and the time for that (actor_spend and others; at once otherwise). It
 * emits at most so many events as there are stripes or workers, and one more. */
typedef void action(vclock *c, actor *a);

struct clock_order {
    const char *name; /* the strategy's */
    int locks; /* a stripe that is being published is busy for others; else who is there does not matter */
    int in_lanes; /* steps are made of lanes: EVENT_LANE, EVENT_REDUCE */
    int cuts; /* a step is cut into clock_parts.lanes, in_lanes or not */
    /* Bytes of vclock.state and of each actor.state, zero at the beginning of each phase. */
    size_t state_size, actor_size;
    /* NULL, or puts a simpler order into `p` where it comes to the same, such as that of one worker. */
    void (*simplify)(clock_parts *p);
    /* NULL, or reads the strategy's options. */
    void (*setup)(vclock *c);
    /* NULL: workers train the process's weights. Else sets actor.vector, the weights that it trains (0 the process's, at most
     * the number of workers), and actor.other, those that it exchanges them with. */
    void (*place)(const vclock *c, actor *a);
    void (*phase_begin)(vclock *c); /* NULL: nothing to do */
    action *enter; /* NULL, or what a worker does before its first step */
    action *begin; /* takes a step, lane or piece; passes_begin: in the order in which workers ask for steps */
    /* For passes.h: the step's event is there, what comes before its first layer; a layer's gradient is complete (NULL: nothing
     * comes of it); all are; there are no more steps and nothing is pending (NULL: the worker is done with the phase). */
    action *step_begun, *layer_done, *step_done, *leave;
};

#endif
