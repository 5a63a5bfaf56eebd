/* The name tables; see registry.h. */
#include "registry.h"

#ifndef CHAOS_ISA_LIMIT /* how many instruction sets are built: 1 generic, 2 AVX2 too, 3 AVX-512 too */
#define CHAOS_ISA_LIMIT 3
#endif

const instruction_set *supported_isa(int i)
{
    const instruction_set *found[4];
    int n = 0;
    found[n++] = &isa_generic;
#if defined(__x86_64__) && CHAOS_ISA_LIMIT > 1
    /* __builtin_cpu_supports looks at CPUID and at XCR0, that is, at what the operating system saves */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        found[n++] = &isa_avx2;
#if CHAOS_ISA_LIMIT > 2
        if (__builtin_cpu_supports("avx512f"))
            found[n++] = &isa_avx512;
#endif
    }
#endif
    return i >= 0 && i < n ? found[i] : NULL;
}

const strategy *strategy_at(int i)
{
#define KIND(name) &sync_##name,
    static const strategy *const strategies[] = {
#include "lists/sync.h"
    };
#undef KIND
    return i >= 0 && i < (int)(sizeof strategies / sizeof *strategies) ? strategies[i] : NULL;
}
