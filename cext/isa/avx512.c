/* AVX-512F and nothing beyond it, so that the code is legal on Knights Landing: vectors of 16 floats. */
#include "common.h"

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
#endif

#define VW 16
#define ISA avx512
#include "bodies.h"

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
