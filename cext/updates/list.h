/* The update rules of the core: one #include and one row each. chaos/updates/__init__.py has the same list. */
#ifdef CHAOS_BODIES
#include "penalty.h"
#include "sgd.c"
#include "momentum.c"
#include "nesterov.c"
#include "adagrad.c"
#include "rmsprop.c"
#include "adam.c"
#include "adamw.c"
#else
&update_sgd,
&update_momentum,
&update_nesterov,
&update_adagrad,
&update_rmsprop,
&update_adam,
&update_adamw,
#endif
