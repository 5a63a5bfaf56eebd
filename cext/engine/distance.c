/* Hands cache lines to and fro; see distance.h. Nobody yields the core while waiting: the cores' distance is to be seen,
 * not the system's. */
#include "distance.h"

#include "ticks.h"

enum { OVER = -1, LINE = 16, AHEAD = 32 }; /* int32_t */

int distance_measure(int32_t *room, int n, int side, int turns, double seconds, float *ns, int most)
{
    const int64_t end = nanoseconds() + (int64_t)(seconds * 1e9);
    int count = -1;
    for (int64_t begin = 0, now = 0; count < most && now < end; count++, begin = now) {
        for (int t = 0; t < turns; t++) {
            int32_t whose;
            for (int i = 1; (whose = __atomic_load_n(room, __ATOMIC_ACQUIRE)) != side; i++)
                if (whose == OVER || (i % 4096 == 0 && nanoseconds() > end)) {
                    __atomic_store_n(room, OVER, __ATOMIC_RELAXED);
                    return count < 0 ? 0 : count;
                }
            for (int k = 0; k < n; k++)
                room[AHEAD + LINE * k]++;
            /* The other side may have ended meanwhile, which must not be overwritten. */
            __atomic_compare_exchange_n(room, &whose, !side, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
        }
        now = nanoseconds();
        if (count >= 0)
            ns[count] = (float)(now - begin) / (2.0f * turns * (n + 1));
    }
    __atomic_store_n(room, OVER, __ATOMIC_RELAXED);
    return count;
}
