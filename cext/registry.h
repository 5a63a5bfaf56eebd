/* Names to things, for the door. */
#ifndef CHAOS_REGISTRY_H
#define CHAOS_REGISTRY_H

#include "isa/isa.h"
#include "sync/sync.h"

/* The i-th instruction set this machine and its operating system support, slowest first; NULL past the end. */
const instruction_set *supported_isa(int i);
/* The i-th strategy; NULL past the end. */
const strategy *strategy_at(int i);

#endif
