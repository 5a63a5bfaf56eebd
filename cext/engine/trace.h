/* Records the order in which workers met the weights, as events that replay/replay.h runs again. A traced worker reads a layer
 * through a private copy that it takes while it holds all stripes of the layer, and numbers that moment; an update, and
 * the copy of a stripe by weights_read_stripe, is numbered while the stripe is held. So the numbers order every read and
 * update of a stripe as they really happened. For strategies that update only stripes they hold (or have one worker). Used
 * by the engine and the door. */
#ifndef CHAOS_TRACE_H
#define CHAOS_TRACE_H

#include "event.h"
#include "worker.h"

/* One worker's part. */
typedef struct trace_lane {
    struct trace *of;
    struct {
        uint64_t number;
        event what;
    } *record;
    size_t n, capacity;
    float *copy; /* of the weights, laid out as they are */
    char apart[128];
} trace_lane;

typedef struct trace {
    _Alignas(128) uint64_t next; /* number */
    _Alignas(128) int64_t begin; /* of the phase */
    int n_lanes;
    trace_lane *lane;
} trace;

/* From now on training phases are recorded; -1 when out of memory. */
int trace_start(engine *e);
void trace_free(trace *t);
/* Events since the last trace_take, which puts them into `out` in their order and forgets them. Between phases. */
int64_t trace_count(const engine *e);
void trace_take(engine *e, event *out);

/* For the engine, in the worker's thread. */
void trace_event(worker *w, enum event_kind kind, uint32_t what);
/* A worker that reads a copy of its strategy's only says that it passes the layer. */
void trace_read(worker *w, int node, enum event_kind kind, int note_versions);

#endif
