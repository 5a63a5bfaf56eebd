/* The list of strategies; one file each in this folder. chaos/sync/__init__.py has the same list. */
#ifndef CHAOS_SYNC_H
#define CHAOS_SYNC_H

#include "engine/engine.h"

extern const strategy sync_sequential, sync_synchronous, sync_averaging, sync_delayed, sync_hogwild, sync_locked, sync_chaos,
    sync_leashed, sync_elastic, sync_replicated, sync_hybrid;

#endif
