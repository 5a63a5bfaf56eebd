/* LeCun's 1.7159 tanh(2x/3); derivative 2/3 (1.7159 - y^2 / 1.7159). Body: included by cext/isa/ only. */
#include "elementwise.h"

ELEMENTWISE(scaled_tanh, 1.7159f * vtanh(x * (2.f / 3)), dy * ((2.f / 3 * 1.7159f) - y * y * (2.f / 3 / 1.7159f)))
