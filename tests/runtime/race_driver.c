/* Many callers on one pool, for a build with the thread sanitizer: put behind pool.c, executor.c, the kernels and a plan.
 *
 * The plan adds, over an arena, x + 1 and 2 x into y. Every caller has an arena of its own and checks its answers; one pins
 * nothing, one asks for a single thread, one for all. */

#include <stdio.h>

enum { LENGTH = 198, CALLERS = 6, CALLS = 400 };

static rl_pool *pool;
static _Atomic int wrong;

static void *call_often(void *argument) {
    int32_t number = (int32_t)(intptr_t)argument, capacity = 1 + number % 4;
    char *arena = NULL, *state = NULL;
    size_t bytes = (size_t)rl_workspace_bytes(0, capacity), state_bytes = (size_t)rl_state_bytes(0, capacity);
    if (posix_memalign((void **)&arena, 64, bytes) || posix_memalign((void **)&state, 64, state_bytes)) return NULL;
    memset(state, 0, state_bytes);
    float x[LENGTH], y[LENGTH];
    const void *inputs[] = {x};
    void *outputs[] = {y};
    double seconds[2];
    for (int i = 0; i < CALLS; i++) {
        for (int k = 0; k < LENGTH; k++) x[k] = (float)(number + i + k), y[k] = -1;
        rl_call call = {arena, state, NULL, (void *const *)inputs, outputs, i % 50 == 7 ? seconds : NULL, capacity, capacity, 0, 2, 0, NULL};
        if (rl_run(pool, &call)) wrong++;
        for (int k = 0; k < LENGTH; k++) wrong += y[k] != 2 * (x[k] + 1);
    }
    free(arena);
    free(state);
    return NULL;
}

int main(void) {
    pool = rl_pool_new(3);
    pthread_t threads[CALLERS];
    for (intptr_t i = 0; i < CALLERS; i++) pthread_create(&threads[i], NULL, call_often, (void *)i);
    for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
    rl_pool_free(pool);
    printf("wrong answers: %d\n", wrong);
    return wrong != 0;
}
