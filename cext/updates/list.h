/* The update rules of the core: one #include and one row each. chaos/updates/__init__.py has the same list. */
#ifdef CHAOS_BODIES
#include "sgd.c"
#else
&update_sgd,
#endif
