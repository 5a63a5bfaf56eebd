/* The strategies; one file each in this folder, listed by setup.py. For the registry. */
#ifndef CHAOS_SYNC_H
#define CHAOS_SYNC_H

#include "engine/engine.h"

#define KIND(name) extern const strategy sync_##name;
#include "lists/sync.h"
#undef KIND

#endif
