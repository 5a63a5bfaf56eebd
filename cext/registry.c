/* The name tables; see registry.h. */
#include "registry.h"

const instruction_set *supported_isa(int i)
{
    const instruction_set *found[4];
    int n = 0;
    found[n++] = &isa_generic;
#if defined(__x86_64__)
    /* __builtin_cpu_supports looks at CPUID and at XCR0, that is, at what the operating system saves */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        found[n++] = &isa_avx2;
        if (__builtin_cpu_supports("avx512f"))
            found[n++] = &isa_avx512;
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
