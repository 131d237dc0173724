/* The thread pool: it hands out cores.
 *
 * A caller takes one core before it works, in the order of arrival when all are taken; workers take the cores that are
 * left and help the jobs that are open. A worker gives its core back at the next chunk when a caller waits for one. So one
 * caller has all cores, many callers run side by side with a core each, and never do more threads compute than there are
 * cores.
 *
 * Nobody ever waits for a worker to arrive. A job is open while its caller works on it; a worker that wakes in time joins
 * in, one that does not finds the job closed. The caller waits only for those that joined.
 */

#define SPIN_NS 20000   /* a worker waits so long for the next job before it lets others run, */
#define YIELD_NS 200000 /* and so long before it sleeps: waking up takes 50 us */
#define MAX_PLACED 15
#define MAX_JOB_THREADS 1024
#define WORD_BITS 64

typedef struct crew crew;
typedef struct job_slot job_slot;
typedef struct waiter waiter;

/* A job that workers may join; it lies on its caller's stack. */
struct job_slot {
    job_slot *next;
    rl_body *body;
    void *data;
    int32_t num_threads;
    int32_t num_helpers;
    uint64_t used[MAX_JOB_THREADS / WORD_BITS]; /* the thread numbers inside; 0 is the caller's */
    _Atomic uint32_t inside;                    /* helpers; the last thing that a leaving one touches */
};

/* A caller that waits for a core; it lies on that caller's stack. */
struct waiter {
    waiter *next;
    _Atomic uint32_t granted;
};

typedef struct {
    crew *owner;
    int32_t number;
} worker;

/* Everything that a fork makes useless is in here: the child builds another crew. What is not atomic is the lock's. */
struct crew {
    pid_t pid;
    rl_pool *pool;
    pthread_mutex_t lock;
    int32_t num_cores, free_cores, num_workers;
    int caller_cpu; /* that the workers were last told to stay away from; -1: none */
    job_slot *open;
    waiter *first, **last;
    pthread_t *handles;
    worker *workers;
    _Alignas(RL_LINE) _Atomic uint32_t bell; /* a futex, rung when a worker may find something to do */
    _Atomic uint32_t sleepers, stop;
};

enum { FUTEX_WAIT_PRIVATE_ = 128, FUTEX_WAKE_PRIVATE_ = 129 };

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE_, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int32_t count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE_, count, NULL, NULL, 0);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Cores. All under the lock. */

static void give_core(crew *c) {
    waiter *w = c->first;
    if (!w) {
        c->free_cores++;
        return;
    }
    c->first = w->next;
    if (!c->first) c->last = &c->first;
    atomic_fetch_sub(&c->pool->waiting, 1);
    atomic_store(&w->granted, 1); /* the waiter may be gone from here on; waking an address where nobody is does no harm */
    futex_wake(&w->granted, 1);
}

/* A core for a caller. The lock is held before and after, not while waiting. */
static void take_core(crew *c) {
    if (c->free_cores > 0) {
        c->free_cores--;
        return;
    }
    waiter w = {NULL, 0};
    *c->last = &w;
    c->last = &w.next;
    atomic_fetch_add(&c->pool->waiting, 1);
    pthread_mutex_unlock(&c->lock);
    for (int spin = 0; !atomic_load(&w.granted); spin++) {
        if (spin < 100) {
            __builtin_ia32_pause();
        } else {
            futex_wait(&w.granted, 0);
        }
    }
    pthread_mutex_lock(&c->lock);
}

/* The open job with the fewest helpers that takes one more; NULL when there is none, or no core for it. */
static job_slot *job_to_join(crew *c) {
    job_slot *best = NULL;
    if (c->free_cores <= 0 || c->first) return NULL;
    for (job_slot *j = c->open; j; j = j->next) {
        if (j->num_helpers < j->num_threads - 1 && (!best || j->num_helpers < best->num_helpers)) best = j;
    }
    return best;
}

/* A thread number that nobody inside the job has: the worker's own where it is free, so that it meets its data again. */
static int32_t thread_number(job_slot *j, int32_t wanted) {
    int32_t n = wanted;
    if (n >= j->num_threads || j->used[n / WORD_BITS] >> n % WORD_BITS & 1) {
        for (n = 1; j->used[n / WORD_BITS] >> n % WORD_BITS & 1; n++) {}
    }
    j->used[n / WORD_BITS] |= UINT64_C(1) << n % WORD_BITS;
    return n;
}

/* Workers */

static void sleep_until_bell(crew *c, uint32_t heard) {
    uint64_t start = now_ns(), waited = 0;
    while (waited < YIELD_NS) {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(&c->bell, memory_order_acquire) != heard) return;
            __builtin_ia32_pause();
        }
        waited = now_ns() - start;
        if (waited > SPIN_NS) sched_yield();
    }
    atomic_fetch_add(&c->sleepers, 1);
    while (atomic_load(&c->bell) == heard) futex_wait(&c->bell, heard);
    atomic_fetch_sub(&c->sleepers, 1);
}

static void ring(crew *c, int32_t count) {
    atomic_fetch_add(&c->bell, 1);
    if (atomic_load(&c->sleepers)) futex_wake(&c->bell, count);
}

/* Helps one job if there is one; gives whether there was. */
static int help(crew *c, int32_t number) {
    pthread_mutex_lock(&c->lock);
    job_slot *j = job_to_join(c);
    if (!j) {
        pthread_mutex_unlock(&c->lock);
        return 0;
    }
    c->free_cores--;
    j->num_helpers++;
    atomic_fetch_add(&j->inside, 1);
    int32_t thread = thread_number(j, number);
    pthread_mutex_unlock(&c->lock);
    int32_t more = j->body(j->data, thread);
    pthread_mutex_lock(&c->lock);
    j->used[thread / WORD_BITS] &= ~(UINT64_C(1) << thread % WORD_BITS);
    j->num_helpers--;
    if (!more) j->num_threads = 0; /* nothing is left to join for */
    give_core(c);
    pthread_mutex_unlock(&c->lock);
    atomic_fetch_sub(&j->inside, 1);
    return 1;
}

static void *work(void *argument) {
    worker *self = argument;
    crew *c = self->owner;
    prctl(PR_SET_NAME, "redline", 0, 0, 0);
    while (!atomic_load(&c->stop)) {
        uint32_t heard = atomic_load(&c->bell);
        if (!help(c, self->number)) sleep_until_bell(c, heard);
    }
    return NULL;
}

/* The crew */

static crew *crew_new(rl_pool *pool) {
    crew *c = NULL;
    if (posix_memalign((void **)&c, RL_LINE, sizeof *c)) return NULL;
    memset(c, 0, sizeof *c);
    c->pid = getpid();
    c->pool = pool;
    c->num_cores = c->free_cores = pool->num_threads;
    c->caller_cpu = -1;
    c->last = &c->first;
    pthread_mutex_init(&c->lock, NULL);
    c->handles = calloc((size_t)pool->num_threads, sizeof *c->handles);
    c->workers = calloc((size_t)pool->num_threads, sizeof *c->workers);
    return c;
}

/* Starts the workers still missing, or as many as the system grants. Signals stay with the program's own threads. */
static void crew_start(crew *c, int32_t num_threads) {
    if (c->num_workers >= num_threads - 1) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (c->handles && c->workers && c->num_workers < num_threads - 1) {
        worker *w = &c->workers[c->num_workers];
        *w = (worker){c, c->num_workers + 1};
        if (pthread_create(&c->handles[c->num_workers], NULL, work, w)) break;
        c->num_workers++;
        c->caller_cpu = -1;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Keeps the workers off the core of a caller that is alone. When all cores are busy, the system likes to wake a worker where
 * its waker runs, and there it gets to run only when the caller stops. Several callers, and large crews, find free cores by
 * themselves. */
static void keep_apart(crew *c) {
    int alone = c->free_cores == c->num_cores - 1;
    int cpu = alone ? sched_getcpu() : -1;
    cpu_set_t others;
    if (cpu == c->caller_cpu || cpu >= CPU_SETSIZE || c->num_workers > MAX_PLACED) return;
    if (sched_getaffinity(0, sizeof others, &others)) return;
    if (cpu >= 0) CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) == 0) return;
    for (int32_t i = 0; i < c->num_workers; i++) pthread_setaffinity_np(c->handles[i], sizeof others, &others);
    c->caller_cpu = cpu;
}

static void crew_free(crew *c) {
    if (c->pid == getpid()) {
        atomic_store(&c->stop, 1);
        ring(c, INT32_MAX);
        for (int32_t i = 0; i < c->num_workers; i++) pthread_join(c->handles[i], NULL);
    }
    free(c->handles);
    free(c->workers);
    free(c);
}

/* This process's crew: a new one at the first job and in the child of a fork, where the old one's threads are gone (and its
 * memory stays behind, since a thread of the parent may have been changing it). NULL when there is no memory. */
static crew *crew_of(rl_pool *pool) {
    void *found = atomic_load(&pool->crew);
    if (found && ((crew *)found)->pid == getpid()) return found;
    crew *made = crew_new(pool);
    if (made && !atomic_compare_exchange_strong(&pool->crew, &found, made)) {
        crew_free(made);
        return found;
    }
    if (made) atomic_store(&pool->waiting, 0); /* those who waited are the parent's */
    return made;
}

static void close_job(crew *c, job_slot *j) {
    job_slot **link = &c->open;
    while (*link != j) link = &(*link)->next;
    *link = j->next;
}

static void pool_run(rl_pool *pool, int32_t num_threads, rl_body *body, void *data) {
    crew *c = crew_of(pool);
    if (!c) {
        body(data, 0);
        return;
    }
    if (num_threads > MAX_JOB_THREADS) num_threads = MAX_JOB_THREADS;
    job_slot j = {NULL, body, data, num_threads, 0, {1}, 0};
    pthread_mutex_lock(&c->lock);
    take_core(c);
    if (num_threads > 1) {
        crew_start(c, num_threads);
        keep_apart(c);
    }
    j.next = c->open;
    c->open = &j;
    int32_t useful = c->free_cores < num_threads - 1 ? c->free_cores : num_threads - 1;
    pthread_mutex_unlock(&c->lock);
    if (useful > 0) ring(c, useful);
    body(data, 0);
    pthread_mutex_lock(&c->lock);
    close_job(c, &j);
    pthread_mutex_unlock(&c->lock);
    for (rl_wait wait = {0}; atomic_load(&j.inside);) rl_wait_turn(&wait);
    pthread_mutex_lock(&c->lock);
    give_core(c);
    int helpless = c->free_cores > 0 && c->open;
    pthread_mutex_unlock(&c->lock);
    if (helpless) ring(c, 1);
}

static void pool_free(rl_pool *pool) {
    crew *c = atomic_load(&pool->crew);
    if (c) crew_free(c);
    free(pool);
}

rl_pool *rl_pool_new(int32_t num_threads) {
    rl_pool *pool = calloc(1, sizeof *pool);
    if (pool) *pool = (rl_pool){RL_ABI, num_threads < 1 ? 1 : num_threads, pool_run, pool_free, NULL, 0};
    return pool;
}

void rl_pool_free(rl_pool *pool) { pool->free(pool); }
