/* The thread pool: a crew of workers that sleep on a futex between jobs.
 *
 * Nobody ever waits for a worker to arrive. A job is open while the caller works on it; a worker that wakes in time joins
 * in, one that does not finds the job closed. The caller waits only for those that joined.
 *
 * state: OPEN while there is a job to join, plus the number of workers inside it.
 */

#define OPEN (UINT32_C(1) << 31)
#define SPIN_NS 20000
#define MAX_PLACED 15

typedef struct crew crew;

typedef struct {
    crew *owner;
    int32_t thread;
} worker;

/* Everything that a fork makes useless is in here: the child builds another crew. */
struct crew {
    pid_t pid;
    int32_t num_workers;
    int caller_cpu; /* that the workers were last told to stay away from */
    _Atomic uint32_t next_ticket, serving, stop;
    _Alignas(RL_LINE) _Atomic uint32_t state;
    _Atomic uint32_t bell, sleepers; /* bell: the futex, rung once a job */
    int32_t job_threads;
    void (*body)(void *, int32_t);
    void *data;
    pthread_t *handles;
    worker *workers;
};

static long futex(_Atomic uint32_t *word, int op, uint32_t value, uint32_t bitset) {
    return syscall(SYS_futex, word, op | 128 /* private */, value, NULL, NULL, bitset);
}

enum { FUTEX_WAIT_BITS = 9, FUTEX_WAKE_BITS = 10 };

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void join_job(crew *c, int32_t thread) {
    uint32_t state = atomic_load(&c->state);
    do {
        if (!(state & OPEN)) return;
    } while (!atomic_compare_exchange_weak(&c->state, &state, state + 1));
    if (thread < c->job_threads) c->body(c->data, thread);
    atomic_fetch_sub(&c->state, 1);
}

static void sleep_until_bell(crew *c, int32_t thread, uint32_t heard) {
    uint64_t deadline = now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(&c->bell, memory_order_acquire) != heard) return;
            __builtin_ia32_pause();
        }
    } while (now_ns() < deadline);
    atomic_fetch_add(&c->sleepers, 1);
    while (atomic_load(&c->bell) == heard) futex(&c->bell, FUTEX_WAIT_BITS, heard, UINT32_C(1) << (thread & 31));
    atomic_fetch_sub(&c->sleepers, 1);
}

static void *work(void *argument) {
    worker *self = argument;
    crew *c = self->owner;
    prctl(PR_SET_NAME, "redline", 0, 0, 0);
    for (uint32_t heard = 0; !atomic_load(&c->stop);) {
        uint32_t bell = atomic_load(&c->bell);
        if (bell == heard) {
            sleep_until_bell(c, self->thread, heard);
            continue;
        }
        heard = bell;
        join_job(c, self->thread);
    }
    return NULL;
}

static crew *crew_new(int32_t num_threads) {
    crew *c = NULL;
    if (posix_memalign((void **)&c, RL_LINE, sizeof *c)) return NULL;
    memset(c, 0, sizeof *c);
    c->pid = getpid();
    c->caller_cpu = -1;
    c->handles = calloc((size_t)num_threads, sizeof *c->handles);
    c->workers = calloc((size_t)num_threads, sizeof *c->workers);
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

/* Keeps the workers off the caller's core. When all cores are busy, the system likes to wake a worker where its waker runs,
 * and there it gets to run only when the caller stops. Large crews find a free core by themselves. */
static void keep_apart(crew *c) {
    int cpu = sched_getcpu();
    cpu_set_t others;
    if (cpu == c->caller_cpu || cpu < 0 || cpu >= CPU_SETSIZE || c->num_workers > MAX_PLACED) return;
    if (sched_getaffinity(0, sizeof others, &others)) return;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) == 0) return;
    for (int32_t i = 0; i < c->num_workers; i++) pthread_setaffinity_np(c->handles[i], sizeof others, &others);
    c->caller_cpu = cpu;
}

static void crew_free(crew *c) {
    if (c->pid == getpid()) {
        atomic_store(&c->stop, 1);
        atomic_fetch_add(&c->bell, 1);
        futex(&c->bell, FUTEX_WAKE_BITS, INT32_MAX, UINT32_MAX);
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
    crew *made = crew_new(pool->num_threads);
    if (made && !atomic_compare_exchange_strong(&pool->crew, &found, made)) {
        crew_free(made);
        return found;
    }
    return made;
}

/* Callers take turns in the order of their arrival. */
static void take_turn(crew *c) {
    uint32_t ticket = atomic_fetch_add(&c->next_ticket, 1), serving;
    for (int spin = 0; (serving = atomic_load(&c->serving)) != ticket; spin++) {
        if (spin < 100) {
            __builtin_ia32_pause();
        } else {
            futex(&c->serving, FUTEX_WAIT_BITS, serving, UINT32_MAX);
        }
    }
}

static void end_turn(crew *c) {
    uint32_t serving = atomic_fetch_add(&c->serving, 1) + 1;
    if (atomic_load(&c->next_ticket) != serving) futex(&c->serving, FUTEX_WAKE_BITS, INT32_MAX, UINT32_MAX);
}

static void pool_run(rl_pool *pool, int32_t num_threads, void (*body)(void *, int32_t), void *data) {
    crew *c = num_threads > 1 ? crew_of(pool) : NULL;
    if (!c) {
        body(data, 0);
        return;
    }
    take_turn(c);
    crew_start(c, num_threads);
    keep_apart(c);
    c->job_threads = num_threads;
    c->body = body;
    c->data = data;
    atomic_store(&c->state, OPEN);
    atomic_fetch_add(&c->bell, 1);
    uint32_t wanted = num_threads > 31 ? UINT32_MAX : (UINT32_C(1) << num_threads) - 2;
    if (atomic_load(&c->sleepers)) futex(&c->bell, FUTEX_WAKE_BITS, INT32_MAX, wanted);
    body(data, 0);
    atomic_fetch_and(&c->state, ~OPEN);
    for (rl_wait wait = {0}; atomic_load(&c->state);) rl_wait_turn(&wait);
    end_turn(c);
}

static void pool_free(rl_pool *pool) {
    crew *c = atomic_load(&pool->crew);
    if (c) crew_free(c);
    free(pool);
}

rl_pool *rl_pool_new(int32_t num_threads) {
    rl_pool *pool = calloc(1, sizeof *pool);
    if (pool) *pool = (rl_pool){RL_ABI, num_threads < 1 ? 1 : num_threads, pool_run, pool_free, NULL};
    return pool;
}

void rl_pool_free(rl_pool *pool) { pool->free(pool); }
