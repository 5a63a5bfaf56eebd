/* What virtual workers do who train replicas of the weights. For orders/. */
#ifndef CHAOS_VIRTUAL_REPLICAS_H
#define CHAOS_VIRTUAL_REPLICAS_H

#include "stripes.h"

/* So many replicas become what the process's weights are. */
void replicas_copy(vclock *c, actor *a, int replicas, action *then);
/* Exchanges the stripes of actor.vector with those of actor.other, one by one from `start` round, each while nobody updates
 * it in `other`, or in `vector` if others train that too (`shared`); then goes on with `then`. */
void replicas_exchange(vclock *c, actor *a, int start, int shared, action *then);
/* A stripe of `other` is new, and the worker has its lines. */
void replicas_count(vclock *c, actor *a, int k);

#endif
