/* Names to things, for the door. */
#ifndef CHAOS_REGISTRY_H
#define CHAOS_REGISTRY_H

#include "engine/bench.h"
#include "engine/finish.h"
#include "engine/phase.h"
#include "engine/replay.h"
#include "engine/trace.h"
#include "sync/sync.h"
#include "virtual/clock.h"

/* The i-th instruction set this machine and its operating system support, slowest first; NULL past the end. */
const instruction_set *supported_isa(int i);
/* The i-th strategy; NULL past the end. */
const strategy *strategy_at(int i);

#endif
