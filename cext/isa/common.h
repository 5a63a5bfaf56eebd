/* Everything that must be declared before a target pragma. Included by the files in this folder. */
#include "isa.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define VECTOR_REGISTER(x) "v"(x)
#elif defined(__aarch64__)
#define VECTOR_REGISTER(x) "w"(x)
#else
#define VECTOR_REGISTER(x) "m"(x)
#endif
