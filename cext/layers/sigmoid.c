/* 1 / (1 + exp(-x)); derivative y (1 - y). Body: included by cext/isa/ only. */
#include "elementwise.h"

ELEMENTWISE(sigmoid, vsigmoid(x), dy *(y * (1.f - y)))
