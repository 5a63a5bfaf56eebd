/* Teams of threads, by OpenMP; see threads.h.
 *
 * libgomp ends the process where the system refuses a thread, and its threads do not exist in a forked child, where a team
 * would wait for them for ever. So a team that needs new threads is tried out first, with threads of the same size; and in
 * a child, a thread that has had a team lets a new one have it. */
#include "threads.h"

#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if CHAOS_OPENMP
#include <omp.h>

static int forks; /* that lead from the process which loaded this to this one */
static pthread_once_t counts_forks = PTHREAD_ONCE_INIT;
static void in_child(void) { forks++; }
static void count_forks(void) { pthread_atfork(NULL, NULL, in_child); }

/* What the calling thread's team is, as far as is known: the runtime keeps its threads for the next one. */
static _Thread_local struct {
    int n, forks;
} team;

/* Bytes of the stack of the runtime's threads, 0: the system's default. As OpenMP 5.2, 21.2.3, defines OMP_STACKSIZE. */
static size_t stack_bytes(void)
{
    const char *asked = getenv("OMP_STACKSIZE");
    asked = asked ? asked : getenv("GOMP_STACKSIZE");
    if (!asked)
        return 0;
    char *end;
    unsigned long long size = strtoull(asked, &end, 10);
    if (end == asked)
        return 0;
    end += strspn(end, " \t");
    const char *const units = "bkmg", *unit = *end ? strchr(units, tolower((unsigned char)*end)) : units + 1;
    if (!unit)
        return 0;
    const int shift = 10 * (int)(unit - units);
    return size > SIZE_MAX >> shift ? SIZE_MAX : (size_t)size << shift;
}

typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int may_end;
} tryout;

static void *wait_for_end(void *arg)
{
    tryout *t = arg;
    pthread_mutex_lock(&t->mutex);
    while (!t->may_end)
        pthread_cond_wait(&t->changed, &t->mutex);
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}

/* How many of n threads the system would start beside those there are, each of them alive until the last is there. */
static int threads_to_be_had(int n)
{
    tryout t = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    pthread_t *thread = malloc((size_t)n * sizeof *thread);
    pthread_attr_t attributes;
    if (!thread || pthread_attr_init(&attributes)) {
        free(thread);
        return 0;
    }
    const size_t size = stack_bytes();
    if (size)
        pthread_attr_setstacksize(&attributes, size); /* where it cannot be set, the runtime takes the default too */
    int started = 0;
    while (started < n && !pthread_create(&thread[started], &attributes, wait_for_end, &t))
        started++;
    pthread_mutex_lock(&t.mutex);
    t.may_end = 1;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.mutex);
    for (int i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_attr_destroy(&attributes);
    pthread_cond_destroy(&t.changed);
    pthread_mutex_destroy(&t.mutex);
    free(thread);
    return started;
}

static int run_in_parallel(int n, void (*body)(void *, int), void *arg)
{
    int ran = 1;
    const int dynamic = omp_get_dynamic();
    omp_set_dynamic(0);
#pragma omp parallel num_threads(n)
    {
#pragma omp master
        ran = omp_get_num_threads();
        if (omp_get_num_threads() == n) {
            float_mode old = flush_denormals();
            body(arg, omp_get_thread_num());
            restore_denormals(old);
        }
    }
    omp_set_dynamic(dynamic);
    return ran;
}

typedef struct {
    int n;
    void (*body)(void *, int);
    void *arg;
    int ran;
} call;

static void *run_call(void *arg)
{
    call *c = arg;
    c->ran = threads_run(c->n, c->body, c->arg);
    return NULL;
}
#endif

int threads_run(int n, void (*body)(void *, int), void *arg)
{
    if (n == 1) {
        float_mode old = flush_denormals();
        body(arg, 0);
        restore_denormals(old);
        return 1;
    }
#if CHAOS_OPENMP
    pthread_once(&counts_forks, count_forks);
    if (team.n && team.forks != forks) {
        pthread_t thread;
        call c = {n, body, arg, 0};
        if (pthread_create(&thread, NULL, run_call, &c))
            return 1;
        pthread_join(thread, NULL);
        return c.ran;
    }
    if (team.n < n) {
        const int had = team.n ? team.n : 1, more = threads_to_be_had(n - had);
        if (more < n - had)
            return had + more;
    }
    const int ran = run_in_parallel(n, body, arg);
    team.n = ran == n ? n : 0;
    team.forks = forks;
    return ran;
#else
    (void)body, (void)arg;
    return 0;
#endif
}
