/* The C side of an engine: what the runtime calls, and the tables of a plan. Put in front of pool.c, executor.c and the
 * plan's own text. */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define RL_ABI 5  /* changes with every change of rl_pool, rl_call or the functions below */
#define RL_LINE 64
#define RL_MAX_DIMS 8
#define EXPORT __attribute__((visibility("default")))
#define HIDDEN __attribute__((visibility("hidden")))

/* What the pool calls. A thread other than 0 may leave at any time and then gives 1 when work is left, 0 when none is. */
typedef int32_t rl_body(void *data, int32_t thread);

/* A pool of threads. It is made by the code of one engine and used by that of others, so they agree on this struct. */
typedef struct rl_pool rl_pool;
struct rl_pool {
    int32_t abi;
    int32_t num_threads; /* the most that compute at once, all jobs together */
    /* Calls body(data, 0) on the caller's thread once a core is free, and body(data, t), 0 < t < num_threads, on those of
     * the pool that have the time; returns when all that were called have returned. body must not depend on how many are
     * called, or how often. */
    void (*run)(rl_pool *, int32_t num_threads, rl_body *body, void *data);
    void (*free)(rl_pool *);
    void *_Atomic crew;
    _Atomic uint32_t waiting; /* callers that wait for a core: helpers leave when there is one */
};

/* One inference by plan number `plan`. The arena is rl_workspace_bytes(plan, capacity) long and holds nothing from call to
 * call, so plans may share one; the state is rl_state_bytes(plan, capacity) long, the plan's own, and zero before its first
 * use. Both are 64-byte aligned and never used by two calls at once. */
typedef struct {
    char *arena;
    char *state;
    const char *weights;
    void *const *inputs;
    void *const *outputs;
    double *step_seconds; /* NULL, or one for each step: then every step waits for the one before */
    int32_t num_threads;  /* the most to use; 1..capacity */
    int32_t capacity;
    int32_t first_step, end_step;
    int32_t plan;
    const int64_t *dims; /* the open dimensions of the plan; NULL where there are none */
} rl_call;

EXPORT int32_t rl_abi(void);
EXPORT int32_t rl_permit(void); /* asks the system for what the kernels need of it: 0, or errno; once a process, before rl_run */
EXPORT int32_t rl_num_plans(void);
EXPORT int32_t rl_num_steps(int32_t plan);
EXPORT int64_t rl_workspace_bytes(int32_t plan, int32_t capacity);
EXPORT int64_t rl_state_bytes(int32_t plan, int32_t capacity);
EXPORT rl_pool *rl_pool_new(int32_t num_threads);
EXPORT void rl_pool_free(rl_pool *);
EXPORT int32_t rl_run(rl_pool *, const rl_call *); /* 0, or -1 when the pool's ABI is another */
EXPORT uint64_t rl_checksum(const void *block, int64_t num_bytes); /* of SPEC.md */

/* args: the addresses of what the kernel reads, then of what it writes, then the open dimensions. */
typedef void rl_kernel(void *const *args, void *scratch, int64_t chunk);
typedef int64_t rl_count(const int64_t *dims);

enum { RL_ARENA, RL_WEIGHTS, RL_INPUT, RL_OUTPUT };

typedef struct {
    int32_t space, index;
    int64_t offset;
    rl_count *open; /* bytes that the dimensions add to the offset; NULL: none */
} rl_ref;

typedef struct {
    rl_kernel *kernel;
    rl_count *count;      /* the chunks at these dimensions; NULL: always num_chunks */
    uint32_t num_chunks;  /* the most that there may be */
    int32_t first_ref, num_refs, barrier;
} rl_step;

typedef struct {
    const rl_step *steps;
    const rl_ref *refs;
    int32_t num_steps, num_dims, max_refs, max_threads; /* max_threads: the most that are worth waking */
    int64_t arena_bytes, scratch_bytes;
} rl_plan;

extern HIDDEN const rl_plan rl_plans[];
extern HIDDEN const int32_t rl_plan_count;

/* Waiting: spin for some microseconds, then let others run for about a millisecond, then sleep, so that a wait is short when the
 * other side is running and harmless when it is not (fewer cores than threads). Who sleeps comes back 100 us later: as long as
 * several small kernels take. */
typedef struct {
    uint32_t turns;
} rl_wait;

static inline void rl_wait_turn(rl_wait *wait) {
    uint32_t turn = wait->turns++;
    if (turn < 1000) {
        __builtin_ia32_pause();
    } else if (turn < 4000) {
        sched_yield();
    } else {
        nanosleep(&(struct timespec){0, 50000}, NULL);
    }
}
