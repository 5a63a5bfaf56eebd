/* Runs the C core without Python: for scripts/run_sanitizers.sh, which builds it with the tools that watch memory and
 * threads. Exits with 1 when a result is not what is known about it.
 *
 *   driver [networks [isa [most]]]   every check, with that many random networks (default 20), on every instruction set here;
 *                                    those of workers on `isa` only, or on the `best` one here, with up to `most` (default 8)
 *   driver fault                     reads one image more than there is, which AddressSanitizer must notice
 *
 * Every array handed to the core is an allocation of exactly its size. Random networks are the same on every machine. */
#define _GNU_SOURCE /* sched_getcpu */
#include "augments.h"
#include "bits.h"
#include "examples.h"
#include "orders.h"
#include "teams.h"

static void fault(void)
{
    plan *p = digits(supported_isa(0));
    float out[11 * 10], *w = aligned_alloc(64, p->weight_size * sizeof *w);
    memset(w, 0, p->weight_size * sizeof *w);
    const size_t size = shape_size(p->node[0].g.out);
    const images view = {.input = {{.bytes = block(10 * size, 1), .size = size}}};
    engine *e = engine_for(p, w, 1, 1, 4096, SEQUENTIAL, CROSS_ENTROPY);
    engine_run(e, FORWARD, &view, 0, 11, 0, out);
}

/* Up to so many workers, whatever their strategy, and the orders in which they come. */
static void check_workers(const instruction_set *isa, int most)
{
    seed = 4;
    for (int workers = 1; workers <= most; workers *= 2) {
        check_exchange(isa, workers);
        check_augmented(isa, workers);
        for (int v = workers == 1 ? SEQUENTIAL : CHAOS; v < VARIANTS; v++) {
            for (int batch = 1; batch <= 16; batch *= 4)
                check_conservation(isa, workers, batch, v);
            check_stop(isa, workers, v % 2 ? 1 : 3, v, TRAIN);
            check_frozen(isa, workers, v % 2 ? 1 : 3, v);
        }
        check_stop(isa, workers, 3, workers == 1 ? SEQUENTIAL : CHAOS, TRAIN);
        check_stop(isa, workers, 1, workers == 1 ? SEQUENTIAL : CHAOS, TEST);
        for (int s = 0; strategy_at(s); s++)
            if (workers < 8 && (workers == 1 || !strategy_at(s)->single)) {
                check_rules(isa, strategy_at(s), workers, 1);
                check_rules(isa, strategy_at(s), workers, 5);
            }
    }
    for (int v = CHAOS; v < VARIANTS; v++)
        check_divergence(isa, v, TRAIN);
    check_divergence(isa, CHAOS, TEST);
    check_engines_at_once(isa);
    check_pinning(isa);
    check_times(isa);
    static const char *const meeting[] = {"synchronous", "hybrid", "averaging", "delayed"};
    for (int k = 0; k < 4; k++)
        for (int batch = 1; batch <= 13; batch += 12) {
            check_meetings(digits(isa), "meetings, digits", meeting[k], 41, batch, k < 2);
            check_meetings(branches(isa), "meetings, branches", meeting[k], 41, batch, k < 2);
            check_meetings(wide(isa), "meetings, wide", meeting[k], 41, batch, k < 2);
        }
    check_lanes(isa);
    for (int workers = 1; workers <= most; workers *= 2)
        for (int batch = 1; batch <= 13; batch += 12) {
            for (int v = CHAOS; v <= AT_PUBLICATION; v++) {
                check_traces(digits(isa), "traces, digits", v, workers, batch, 1);
                check_traces(branches(isa), "traces, branches", v, workers, batch, 3);
                check_traces(partly(isa), "traces, partly frozen", v, workers, batch, 2);
            }
            check_clock(branches(isa), &clock_order_chaos, AT_PUBLICATION, workers, batch);
            for (int i = 0; orders_at(i); i++) {
                const clock_order *order = orders_at(i);
                const int v = variant_of(order->name), one = order == &clock_order_sequential;
                if (!one || workers == 1) {
                    check_clock(branches(isa), order, v, workers, batch);
                    check_clock(partly(isa), order, v, workers, batch);
                }
                if (!one && !order->place && (!order->cuts || order->in_lanes)) /* CHAOS's engine can do these too */
                    check_clock(branches(isa), order, CHAOS, workers, batch);
            }
            for (int v = variant_of("replicated"); workers > 2 && !strcmp(variants[v].name, "replicated"); v++)
                check_clock(branches(isa), &clock_order_replicated, v, workers, batch);
            for (int v = variant_of("domains"); workers > 2 && !strcmp(variants[v].name, "domains"); v++)
                check_clock(branches(isa), &clock_order_domains, v, workers, batch);
        }
}

int main(int n, char **argument)
{
    if (n > 1 && !strcmp(argument[1], "fault")) {
        fault();
        return 0;
    }
    const int networks = n > 1 ? atoi(argument[1]) : 20;
    check_distance();
    check_everywhere(digits, "digits", 1, 23);
    check_everywhere(branches, "branches", 2, 23);
    check_everywhere(separable, "separable", 3, 23);
    check_everywhere(wide, "wide", 5, 23);
    for (int i = 0; i < networks; i++) {
        char name[40];
        snprintf(name, sizeof name, "random network %d", i);
        check_everywhere(any, name, 1000 + (uint64_t)i, 11);
    }
    const char *only = n > 2 ? argument[2] : NULL;
    const instruction_set *isa;
    int n_checked = 0;
    for (int i = 0; (isa = supported_isa(i)); i++) {
        check_examples(isa, "tests/c/layers.txt");
        check_augmented(isa, 1);
        if (only && strcmp(isa->name, only) && (strcmp(only, "best") || supported_isa(i + 1)))
            continue;
        check_workers(isa, n > 3 ? atoi(argument[3]) : 8);
        n_checked++;
    }
    expect(n_checked > 0, "there is no instruction set %s", only ? only : "");
    for (int i = 0; (isa = supported_isa(i)); i++)
        printf("%s%s", i ? ", " : "", isa->name);
    printf(": %d networks, %d phases, %lld stripes found locked, %lld updates late (at most %lld behind): %s\n", n_networks,
           n_phases, (long long)lock_failures, (long long)late, (long long)latest, failures ? "WRONG" : "all right");
    return failures > 0;
}
