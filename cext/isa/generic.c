/* Vectors of 4 floats with the compiler's baseline: SSE2 on x86-64, NEON on aarch64. */
#include "common.h"

#define VW 4
#define ISA generic
#include "bodies.h"
