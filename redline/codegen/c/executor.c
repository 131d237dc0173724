/* Runs a plan: every thread walks all the steps and takes chunks of each, first its own share, then what others left.
 *
 * A share is the same part of every step, so a thread finds in its cache what it wrote in the step before. A step with a
 * barrier waits until the count of finished chunks says that all earlier steps are done; a thread that came late or was
 * stopped by the system between two chunks therefore holds up nobody.
 *
 * Arena: the plan's temporary tensors, then each thread's scratch. State: the struct below, where the chunks of each step
 * begin, and a line of counters for each (step, thread). A counter is (run number << 32 | chunks taken), so that it need not
 * be cleared: one of an earlier run means 0.
 */

typedef struct {
    uint32_t run, bound;
    int32_t widest; /* the most chunks of a step */
    int64_t dims[RL_MAX_DIMS];
    _Alignas(RL_LINE) _Atomic uint32_t finished; /* chunks, counted from the plan's first */
} state;

typedef struct {
    const rl_call *call;
    const rl_plan *plan;
    const rl_pool *pool;
    state *state;
    const uint32_t *first_chunks; /* of each step, and of the end: sums of the numbers of chunks */
    char *counters, *scratch;
    int32_t num_threads;
} job;

static int64_t round_up(int64_t bytes) { return (bytes + RL_LINE - 1) / RL_LINE * RL_LINE; }

static int64_t first_bytes(const rl_plan *plan) { return round_up((int64_t)sizeof(uint32_t) * (plan->num_steps + 1)); }

int32_t rl_abi(void) { return RL_ABI; }

/* The registers of the matrix unit are a process's only after it has asked for them (Linux 5.16). */
int32_t rl_permit(void) {
#ifdef __AMX_TILE__
    enum { ASK_FOR_FEATURE = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, ASK_FOR_FEATURE, TILE_DATA) ? errno : 0;
#else
    return 0;
#endif
}

int32_t rl_num_plans(void) { return rl_plan_count; }

int32_t rl_num_steps(int32_t plan) { return rl_plans[plan].num_steps; }

int64_t rl_workspace_bytes(int32_t plan, int32_t capacity) {
    return round_up(rl_plans[plan].arena_bytes) + round_up(rl_plans[plan].scratch_bytes) * capacity;
}

int64_t rl_state_bytes(int32_t plan, int32_t capacity) {
    return (int64_t)sizeof(state) + first_bytes(&rl_plans[plan]) + (int64_t)rl_plans[plan].num_steps * capacity * RL_LINE;
}

/* The next chunk of a share of `length` chunks, or -1 when all are taken. */
static int64_t take_chunk(_Atomic uint64_t *counter, uint32_t run, uint32_t length) {
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    while (value >> 32 != run) {
        if (atomic_compare_exchange_weak(counter, &value, (uint64_t)run << 32 | 1)) return 0;
    }
    if ((uint32_t)value >= length) return -1;
    uint32_t taken = (uint32_t)atomic_fetch_add(counter, 1);
    return taken < length ? (int64_t)taken : -1;
}

static void *address(const rl_call *call, const rl_ref *ref) {
    int64_t offset = ref->offset + (ref->open ? ref->open(call->dims) : 0);
    switch (ref->space) {
        case RL_ARENA: return call->arena + offset;
        case RL_WEIGHTS: return (char *)call->weights + offset;
        case RL_INPUT: return (char *)call->inputs[ref->index] + offset;
        default: return (char *)call->outputs[ref->index] + offset;
    }
}

/* Whether a helper should leave, because a caller waits for a core. */
static int must_leave(const job *j, int32_t thread) {
    return thread && atomic_load_explicit(&j->pool->waiting, memory_order_relaxed);
}

/* Runs the chunks of a step that this thread can get; gives their number. */
static uint32_t run_step(const job *j, int32_t index, const rl_step *step, int32_t thread) {
    void *args[j->plan->max_refs + 1];
    for (int32_t i = 0; i < step->num_refs; i++) args[i] = address(j->call, &j->plan->refs[step->first_ref + i]);
    void *scratch = j->scratch + round_up(j->plan->scratch_bytes) * thread;
    args[step->num_refs] = (void *)j->call->dims;
    uint64_t n = j->first_chunks[index + 1] - j->first_chunks[index], threads = (uint64_t)j->num_threads;
    uint32_t done = 0;
    for (int32_t turn = 0; turn < j->num_threads; turn++) {
        uint64_t owner = (uint64_t)(thread + turn) % threads;
        uint64_t first = (n * owner + threads - 1) / threads, end = (n * (owner + 1) + threads - 1) / threads;
        if (first == end) continue;
        int64_t line = (int64_t)index * j->call->capacity + (int64_t)owner;
        _Atomic uint64_t *counter = (_Atomic uint64_t *)(j->counters + line * RL_LINE);
        int64_t chunk;
        while (!must_leave(j, thread) && (chunk = take_chunk(counter, j->state->run, (uint32_t)(end - first))) >= 0) {
            step->kernel(args, scratch, (int64_t)first + chunk);
            done++;
        }
    }
    return done;
}

/* Waits until that many chunks are finished; gives 0 when the thread should leave instead. */
static int wait_for(const job *j, uint32_t chunks, int32_t thread) {
    for (rl_wait wait = {0}; atomic_load_explicit(&j->state->finished, memory_order_acquire) < chunks; rl_wait_turn(&wait)) {
        if (must_leave(j, thread)) return 0;
    }
    return 1;
}

static double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int32_t walk(void *data, int32_t thread) {
    const job *j = data;
    const rl_call *call = j->call;
    double started = call->step_seconds ? now_seconds() : 0;
    for (int32_t i = call->first_step; i < call->end_step; i++) {
        const rl_step *step = &j->plan->steps[i];
        uint32_t first = j->first_chunks[i], end = j->first_chunks[i + 1];
        if (!call->step_seconds && atomic_load_explicit(&j->state->finished, memory_order_acquire) >= end) continue;
        if ((step->barrier || call->step_seconds) && !wait_for(j, first, thread)) return 1;
        uint32_t done = run_step(j, i, step, thread);
        if (done) atomic_fetch_add(&j->state->finished, done);
        if (must_leave(j, thread)) return 1;
        if (call->step_seconds && thread == 0) {
            wait_for(j, end, 0);
            double ended = now_seconds();
            call->step_seconds[i] = ended - started;
            started = ended;
        }
    }
    return 0;
}

/* Every thread computes with the default rounding and denormals, whatever its owner has set. */
static int32_t walk_in_default_float_mode(void *data, int32_t thread) {
    unsigned mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(0x1f80);
    int32_t more = walk(data, thread);
    __builtin_ia32_ldmxcsr(mode);
    return more;
}

/* The threads that can help: no more than asked for, in the pool, of use to the plan, and allowed by the affinity mask. */
static int32_t useful_threads(const rl_pool *pool, const rl_call *call, const rl_plan *plan, const state *s) {
    int32_t n = call->num_threads < call->capacity ? call->num_threads : call->capacity;
    if (n > pool->num_threads) n = pool->num_threads;
    if (n > plan->max_threads) n = plan->max_threads;
    if (n > s->widest) n = s->widest;
    cpu_set_t allowed;
    if (n > 1 && sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_COUNT(&allowed) < n) n = CPU_COUNT(&allowed);
    return n < 1 ? 1 : n;
}

/* Counts the chunks of the steps, unless the last call had the same dimensions. */
static void bind(state *s, uint32_t *first_chunks, const rl_plan *plan, const int64_t *dims) {
    size_t bytes = sizeof *dims * (size_t)plan->num_dims;
    if (s->bound && (!bytes || memcmp(s->dims, dims, bytes) == 0)) return;
    if (bytes) memcpy(s->dims, dims, bytes);
    s->bound = 1;
    s->widest = 0;
    for (int32_t i = 0; i < plan->num_steps; i++) {
        const rl_step *step = &plan->steps[i];
        uint32_t count = step->count ? (uint32_t)step->count(dims) : step->num_chunks;
        first_chunks[i + 1] = first_chunks[i] + count;
        if ((int32_t)count > s->widest) s->widest = (int32_t)count;
    }
}

int32_t rl_run(rl_pool *pool, const rl_call *call) {
    if (pool->abi != RL_ABI) return -1;
    if (call->first_step >= call->end_step) return 0;
    const rl_plan *plan = &rl_plans[call->plan];
    state *s = (state *)call->state;
    uint32_t *first_chunks = (uint32_t *)(s + 1);
    char *counters = (char *)first_chunks + first_bytes(plan);
    bind(s, first_chunks, plan, call->dims);
    if (++s->run == 0) s->run = 1;
    atomic_store(&s->finished, first_chunks[call->first_step]);
    char *scratch = call->arena + round_up(plan->arena_bytes);
    job j = {call, plan, pool, s, first_chunks, counters, scratch, useful_threads(pool, call, plan, s)};
    pool->run(pool, j.num_threads, walk_in_default_float_mode, &j);
    return 0;
}
