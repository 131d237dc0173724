/* Attention on Hopper with whole rows of scores in registers: there are no more than 256 keys, so nothing passes by in blocks.

   p = 2^(u - max u), u = score * log2(e) over all keys of a query; out = (p @ v) / sum of p

   One thread asks the copy engine for the heads of this program, SLOTS of them under way; CONSUMERS warp groups take blocks of
   64 queries in turn. Behind the last key the copy engine fills in zeros, so that p = 0 there times v = 0 is 0.

   In front of this stand hopper.h and, from whole.py: the constants in capitals, Params, dots (the scores of 64 queries),
   gather (out += 16 keys' share), finish_dots, finish_sums, scored (the exponent of a score, of its key) and pair (two
   values as 32 bits). */

#define BLOCKS ((QUERIES + 63) / 64)
#define Q_BYTES (BLOCKS * 64 * ROW_BYTES)
#define KV_BYTES (KEY_ROWS * ROW_BYTES)
#define SLOT_BYTES (Q_BYTES + 2 * KV_BYTES)
#define WARPS (4 * CONSUMERS)

/* A box of rows of head (b, g), whole rows of 64 values. */
static __device__ __forceinline__ void fetch_head(u32 to, const Map *map, u32 barrier, int b, int g) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %3, %4, %5}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(0), "r"(g), "r"(b) : "memory");
}

static __device__ __forceinline__ float power(float x) {
  asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
  return x;
}

static __device__ __forceinline__ void produce(const Map *q, const Map *k, const Map *v, u32 pool, u32 scores, u32 values, u32 empty) {
  int round = 0;
  for (int head = blockIdx.x; head < BATCH * HEADS; head += gridDim.x, round++) {
    int slot = round % SLOTS, b = head / HEADS, g = head % HEADS;
    u32 at = pool + slot * SLOT_BYTES;
    wait_for(empty + 8 * slot, round / SLOTS % 2 ^ 1);
    expect(scores + 8 * slot, Q_BYTES + KV_BYTES);
    fetch_head(at, q, scores + 8 * slot, b, g);
    fetch_head(at + Q_BYTES, k, scores + 8 * slot, b, g / GROUP);
    expect(values + 8 * slot, KV_BYTES);
    fetch_head(at + Q_BYTES + KV_BYTES, v, values + 8 * slot, b, g / GROUP);
  }
}

/* Scores of two rows to powers of two as the factors of the second product; the reciprocal of their sums in ``scale``. */
static __device__ __forceinline__ void soften(float (&s)[KEYS / 2], u32 (&p)[KEY_ROWS / 4], float (&scale)[2], const Params &params,
                                              int b, int lane) {
  float high[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
#pragma unroll
  for (int i = 0; i < KEYS / 2; i++) {
    int key = i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (i / 4 * 8 + 8 <= REAL_KEYS || key < REAL_KEYS)
      s[i] = scored(params, s[i], b, key);
    else
      s[i] = -INFINITY;
    high[i / 2 % 2] = larger(high[i / 2 % 2], s[i]);
  }
#pragma unroll
  for (int row = 0; row < 2; row++) {
    for (int other = 1; other <= 2; other *= 2)
      high[row] = larger(high[row], __shfl_xor_sync(0xFFFFFFFFu, high[row], other));
    if (MAY_BE_HIDDEN && high[row] == -INFINITY) high[row] = 0.0f;
    high[row] *= UNIT;
  }
#pragma unroll
  for (int i = 0; i < KEY_ROWS / 2; i += 2) {
    int row = i / 2 % 2;
    float left = 0.0f, right = 0.0f;
    if (i < KEYS / 2) {
      left = power(s[i < KEYS / 2 ? i : 0] * UNIT - high[row]);
      right = power(s[i < KEYS / 2 ? i + 1 : 0] * UNIT - high[row]);
      sum[row] += left + right;
    }
    p[i / 2] = pair(left, right);
  }
#pragma unroll
  for (int row = 0; row < 2; row++) {
    for (int other = 1; other <= 2; other *= 2) sum[row] += __shfl_xor_sync(0xFFFFFFFFu, sum[row], other);
    scale[row] = sum[row] == 0.0f ? 1.0f : 1.0f / sum[row];
  }
}

/* 16 rows by 64 columns of sums, to out. */
static __device__ __forceinline__ void finish(const float (&acc)[32], const float (&scale)[2], char *out, u32 staging, int row,
                                              int lane) {
#pragma unroll
  for (int q = 0; q < 4; q++) {
    u32 at = staged(staging, lane / 8 % 2 * 8 + lane % 8, q * 2 + lane / 16), y[4];
#pragma unroll
    for (int i = 0; i < 4; i++) y[i] = pair(acc[q * 8 + i * 2] * scale[i % 2], acc[q * 8 + i * 2 + 1] * scale[i % 2]);
    store_matrices(at, y);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int r = i * 4 + lane / 8;
    Quad v = read_shared(staged(staging, r, lane % 8));
    if (row + r < QUERIES) write_global(out + (long long)(row + r) * OUT_ROW * 2 + lane % 8 * 16, v);
  }
  __syncwarp();
}

static __device__ __forceinline__ void consume(const Params &params, u32 pool, u32 staging, u32 scores, u32 values, u32 empty,
                                               int consumer) {
  int warp = __shfl_sync(0xFFFFFFFFu, threadIdx.x / 32 % 4, 0), lane = threadIdx.x % 32, round = 0;
  staging += (consumer * 4 + warp) * STAGING_BYTES;
  for (int head = blockIdx.x; head < BATCH * HEADS; head += gridDim.x, round++) {
    int slot = round % SLOTS, b = head / HEADS, g = head % HEADS;
    u32 at = pool + slot * SLOT_BYTES, parity = round / SLOTS % 2;
    char *out = (char *)params.out + ((long long)b * OUT_BATCH + (long long)g * OUT_HEAD) * 2;
    wait_for(scores + 8 * slot, parity);
#pragma unroll 1
    for (int block = (consumer + 2 * CONSUMERS * BLOCKS - round % CONSUMERS * BLOCKS) % CONSUMERS; block < BLOCKS; block += CONSUMERS) {
      float s[KEYS / 2], acc[32], scale[2] = {1.0f, 1.0f};
      u32 p[KEY_ROWS / 4];
      u64 q = descriptor(at + block * 64 * ROW_BYTES), k = descriptor(at + Q_BYTES), v = descriptor(at + Q_BYTES + KV_BYTES);
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
      for (int i = 0; i < 4; i++) dots(s, q + i * 2, k + i * 2, i);
      asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
      finish_dots(s);
      int row = block * 64 + warp * 16;
      soften(s, p, scale, params, b, lane);
      wait_for(values + 8 * slot, parity);
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
      for (int i = 0; i < KEY_ROWS / 16; i++) gather(acc, p + i * 4, v + i * (16 * ROW_BYTES / 16), i);
      asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
      finish_sums(acc);
      if (row < QUERIES) finish(acc, scale, out, staging, row, lane);
    }
    wait_for(values + 8 * slot, parity);
    if (lane == 0) release(empty + 8 * slot);
  }
}

static __device__ __forceinline__ void work(const Map *q, const Map *k, const Map *v, const Params &params) {
  extern __shared__ unsigned char memory[];
  u32 pool = ((u32)__cvta_generic_to_shared(memory) + 1023) & ~1023u, staging = pool + SLOTS * SLOT_BYTES;
  u32 scores = staging + WARPS * STAGING_BYTES, values = scores + 8 * SLOTS, empty = values + 8 * SLOTS;
  if (threadIdx.x == 0) {
    prepare(q);
    prepare(k);
    prepare(v);
    for (int slot = 0; slot < SLOTS; slot++) {
      init_barrier(scores + 8 * slot, 1);
      init_barrier(values + 8 * slot, 1);
      init_barrier(empty + 8 * slot, WARPS);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  WAIT_FOR_THE_KERNEL_IN_FRONT
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
    if (threadIdx.x == 0) produce(q, k, v, pool, scores, values, empty);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONSUMER_REGISTERS));
    consume(params, pool, staging, scores, values, empty, threadIdx.x / 128 - 1);
  }
}
