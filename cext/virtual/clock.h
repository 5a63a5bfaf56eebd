/* A discrete-event clock: invents the order in which virtual workers would meet the weights on a machine of given speed, as
 * events for replay/replay.h, and how long it would take. It computes no network. For the door.
 *
 * The model. A worker is always doing one thing: beginning a step, passing a layer forward or backward, publishing, copying or
 * exchanging a stripe, or waiting. A pass takes the layer's time per image x images x the worker's factor (hardware threads of
 * a core share it, stragglers) x a lognormal factor of mean 1. It reads the layer's weights when it begins; an update is there
 * when its publication ends. Cache lines of a stripe that others have updated since the worker last touched it cost
 * `clock_parts.line` seconds each before they are read or updated. A copy of a stripe takes as long as an update of it, an
 * exchange of two vectors twice as long (with a third, that of `replicated`, three times), the average of n replicas n times.
 * What is not modelled: memory bandwidth, page faults, the rest of the system.
 *
 * The room, from below: random; parts (what a clock is made of), order (what a strategy provides), actor (workers and their
 * time), stripes (publication), passes (a step), meeting, replicas; clock (phases); orders (the list). Each strategy that can
 * be simulated has a file in orders/, which setup.py lists; it needs no other line. */
#ifndef CHAOS_CLOCK_H
#define CHAOS_CLOCK_H

#include "parts.h"

#include "engine/event.h"

typedef struct vclock vclock;

vclock *vclock_new(const clock_parts *parts); /* copies the parts; NULL when out of memory */
void vclock_free(vclock *c);
/* A phase of n images begins for all workers at the time when the last one was over. */
void vclock_begin(vclock *c, int64_t n_images);
/* The next events, at most `room`, and if wanted when each took place and since when (NULL: not); 0 at the phase's end.
 * Room must be at least vclock_room. */
int64_t vclock_next(vclock *c, int64_t room, event *events, double *since, double *when);
int64_t vclock_room(const vclock *c);
double vclock_now(const vclock *c);
const clock_counts *vclock_counted(const vclock *c);
/* Fewer than parts.n_workers where the order comes to one worker's. */
int vclock_workers(const vclock *c);
/* For replay_new: into how many lanes steps are cut, 0: their events are not those of lanes. */
int vclock_lanes(const vclock *c);

#endif
