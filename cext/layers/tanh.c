/* tanh x; derivative 1 - y^2. Body: included by cext/isa/ only. */
#include "elementwise.h"

ELEMENTWISE(tanh, vtanh(x), dy * (1.f - y * y))
