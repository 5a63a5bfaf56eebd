/* Sums in double precision, VW channels at a time. Included by the bodies in this folder. */
#ifndef CHAOS_SUMS_H
#define CHAOS_SUMS_H

typedef double norm_sum __attribute__((vector_size(8 * VW), aligned(64), may_alias));
typedef double norm_sum_u __attribute__((vector_size(8 * VW), aligned(8), may_alias)); /* in memory */
typedef double norm_double __attribute__((may_alias));

#define norm_wide(x) __builtin_convertvector(x, norm_sum)
#define norm_narrow(x) __builtin_convertvector(x, vec)

#endif
