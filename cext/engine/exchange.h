/* The weights of a running engine for somebody who is not a worker: a thread that exchanges them with other processes. For
 * the door. All of it may be called while a phase is under way, by one thread at a time. */
#ifndef CHAOS_EXCHANGE_H
#define CHAOS_EXCHANGE_H

#include "engine.h"

/* Copies the weights of stripes [from, to) to out + their position, each stripe as it was at one moment if the strategy
 * locks stripes. */
void exchange_read(engine *e, int from, int to, float *out);

/* w += scale * delta for the same stripes, except those that are frozen, under their locks, so that nothing a worker adds is lost; `private_copy` is
 * room for weight_size floats when built with CHAOS_CAREFUL, else unused. Versions stay: they count the workers' updates. */
void exchange_add(engine *e, int from, int to, const float *delta, float scale, float *private_copy);

/* The stripes' locks and versions live at `place` (exchange_state_bytes, zeroed, aligned to 128) from now on, where other
 * processes may have theirs too; returns the old place, which has to be put back before engine_free. No phase may be under
 * way. */
void *exchange_move_states(engine *e, void *place);
size_t exchange_state_bytes(const engine *e);

/* out = row 0 + row 1 + ... of n floats each, `stride` floats apart, in this order, as the workers add: denormals become
 * 0. out may be row 0. */
void exchange_add_rows(const float *row, int n_rows, size_t stride, size_t n, float *out);

/* The largest of n numbers that workers write for engine_lanes; 0 if there are none. What it says is there may be read. */
int exchange_reached(const int32_t *reached, int n);

/* Between phases: engine_position is 0 until the next one begins, not where the last one has ended. */
void exchange_rewind(engine *e);

#endif
