/* max(x, 0); derivative 1 where y > 0, 0 elsewhere; NaN stays NaN. Body: included by cext/isa/ only. */
#include "elementwise.h"

ELEMENTWISE(relu, vselect(x <= 0.f, vset(0), x), (vec)((ivec)dy & (y > 0.f)))
