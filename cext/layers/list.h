/* The layer kinds of the core: one #include and one row each. chaos/layers/__init__.py has the same list. */
#ifdef CHAOS_BODIES
#include "elementwise.h"
#include "add.c"
#include "conv2d.c"
#include "flatten.c"
#include "linear.c"
#include "max_pool2d.c"
#include "relu.c"
#include "scaled_tanh.c"
#include "sigmoid.c"
#include "tanh.c"
#else
&layer_add,
&layer_conv2d,
&layer_flatten,
&layer_linear,
&layer_max_pool2d,
&layer_relu,
&layer_scaled_tanh,
&layer_sigmoid,
&layer_tanh,
#endif
