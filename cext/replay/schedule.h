/* What an event has to wait for when several threads run events at once: the worker's earlier events; and reads of a layer
 * commute, everything else about it happens in the given order. For this room. */
#ifndef CHAOS_SCHEDULE_H
#define CHAOS_SCHEDULE_H

#include "order.h"

/* How an event meets the weights that workers share. */
enum access { APART, READS, READS_ALL, WRITES, WRITES_TWO };

typedef struct {
    uint32_t turn;  /* that many of the worker's events are done */
    uint32_t
        after; /* that many earlier accesses are done: READS the layer's writes, READS_ALL all layers' writes, WRITES all
                       of the layer's */
    uint32_t also;  /* WRITES_TWO: the same of layer `second` */
    uint32_t step;  /* LANE, REDUCE, PIECE: its number; EXCHANGE: so many workers have arrived at meetings */
    int32_t at, second; /* places in schedule.layer; READS_ALL: of the first layer; PIECE: its stage, its place there */
    uint8_t access;
} ticket;

/* Accesses to a layer that are done, or, while events are checked, that have been seen. */
typedef struct {
    _Alignas(128) uint32_t all;
    uint32_t writes;
} layer_accesses;

typedef struct {
    _Alignas(64) uint32_t done; /* events of the worker */
} worker_progress;

typedef struct {
    const layout *l;
    layer_accesses *layer; /* per vector and layer */
    worker_progress *worker;
    uint32_t n_arrivals;          /* among the events that have been checked */
    uint32_t n_checked, stage_at; /* pieces among them; of those, before the stage under way */
    _Alignas(128) uint32_t arrived;
    _Alignas(128) uint32_t n_run; /* pieces */
} schedule;

/* -1 when out of memory. */
int schedule_open(schedule *s, const layout *l);
void schedule_close(schedule *s);
/* Nothing has been seen, or done. */
void schedule_reset(schedule *s);
/* Notes what the event has to wait for; it has been checked by `o`, and been possible at `from`. */
void schedule_note(schedule *s, const order *o, event ev, order_position from, ticket *t);
/* Whether everything that the event waits for is done. */
int schedule_ready(const schedule *s, event ev, const ticket *t);
/* The event needs no more of the weights that others may want; the event is done. */
void schedule_access_over(schedule *s, event ev, const ticket *t);
void schedule_done(schedule *s, event ev, const ticket *t);

#endif
