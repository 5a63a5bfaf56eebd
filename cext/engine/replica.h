/* Weight vectors beside the process's. For cext/sync/. */
#ifndef CHAOS_REPLICA_H
#define CHAOS_REPLICA_H

#include "engine.h"

/* Another weight vector with state and locks of its own, a copy of `of`; NULL when out of memory. */
shared_weights *replica_new(const engine *e, const shared_weights *of);
void replica_free(shared_weights *s);

#endif
