/* The strategies, one file each in this folder, listed by setup.py; and what of the engine they may use. For the registry
 * and the strategies. */
#ifndef CHAOS_SYNC_H
#define CHAOS_SYNC_H

#include "engine/bounds.h"
#include "engine/lanes.h"
#include "engine/pass.h"
#include "engine/replica.h"
#include "engine/step.h"
#include "engine/strategy.h"
#include "engine/team.h"
#include "engine/unit.h"
#include "engine/wait.h"
#include "engine/weights.h"

#define KIND(name) extern const strategy sync_##name;
#include "lists/sync.h"
#undef KIND

#endif
