/* What workers do, as numbers: the events that trace.h records and replay/replay.h runs again. For both, and for
 * who invents their order (cext/virtual/). */
#ifndef CHAOS_EVENT_H
#define CHAOS_EVENT_H

#include <stdint.h>

/* What a worker does. A layer is the number of a node with weights; nodes without weights follow the one before them.
 *
 *   STEP      begins step number `what` of the phase: images [what * batch, (what + 1) * batch) of it
 *   COPY      reads all weights at once; the step then sees this copy
 *   FORWARD   reads layer `what` and passes it
 *   BACKWARD  reads layer `what` again and back-propagates it; its gradient is complete when the step's last chunk has passed
 *   PUBLISH   its gradient updates stripe `what`
 *   POSTPONE  it goes on and publishes stripe `what` later
 *   LANE      begins lane `what` of the synchronous step under way
 *   REDUCE    adds up the lanes' gradients and updates stripe `what` with the sum
 *   ARRIVE    has come to a meeting and takes no step before it leaves it
 *   EXCHANGE  replicas: makes the exchange of stripe `what`; when all have arrived, where exchanges have meetings
 *   LEAVE     goes on from what all stripes' exchanges have made of the process's weights
 *   READ      copies stripe `what` into what its passes read, where workers keep such copies (strategy.keeps_copy); before its
 *             first step of the phase all
 *   PIECE     does piece `what` of the step under way, counted through its stages (strategy.stages) */
#define EVENTS(X)                                                                                                           \
    X(STEP, "step")                                                                                                         \
    X(COPY, "copy")                                                                                                         \
    X(FORWARD, "forward")                                                                                                   \
    X(BACKWARD, "backward")                                                                                                 \
    X(PUBLISH, "publish")                                                                                                   \
    X(POSTPONE, "postpone")                                                                                                 \
    X(LANE, "lane")                                                                                                         \
    X(REDUCE, "reduce")                                                                                                     \
    X(ARRIVE, "arrive")                                                                                                     \
    X(EXCHANGE, "exchange")                                                                                                 \
    X(LEAVE, "leave")                                                                                                       \
    X(READ, "read")                                                                                                         \
    X(PIECE, "piece")

#define X(kind, name) EVENT_##kind,
enum event_kind { EVENT_NONE, EVENTS(X) EVENT_KINDS };
#undef X

/* "" for EVENT_NONE; NULL for what is no kind. */
const char *event_name(int kind);

/* worker | kind << 16 | what << 32 */
typedef uint64_t event;

static inline event event_of(enum event_kind kind, int worker, uint32_t what)
{
    return (uint64_t)what << 32 | (uint64_t)kind << 16 | (uint64_t)(uint16_t)worker;
}
static inline int event_worker(event v) { return (int)(v & 0xffff); }
static inline int event_kind(event v) { return (int)(v >> 16 & 0xffff); }
static inline uint32_t event_what(event v) { return (uint32_t)(v >> 32); }

#endif
