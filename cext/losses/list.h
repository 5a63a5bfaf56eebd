/* The losses of the core: one #include and one row each. chaos/losses/__init__.py has the same list. */
#ifdef CHAOS_BODIES
#include "cross_entropy.c"
#include "mse.c"
#include "score.c"
#else
&loss_cross_entropy,
&loss_mse,
&loss_score,
#endif
