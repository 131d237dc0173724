/* A product on Hopper by a crew of warp groups: one asks the copy engine for tiles, the others multiply and finish them.

   out[r, c] = value(sum over k of a[r, k] * b[c, k]); a tile is 64 * BLOCKS * CONSUMERS rows by TILE_N columns.

   Programs stay and walk from tile to tile. Tiles of a and b lie in STAGES stages of shared memory, 64 elements of k
   (128 bytes) each, swizzled as the tensor cores want them. ``full`` counts the bytes of a stage that arrived, ``empty`` the
   warps that are done with it; in a cluster of two both processors get the halves of the tile that they share.

   In front of this stand hopper.h and, from crew.py: the constants in capitals, Params (what the epilogue reads, and out), multiply (one
   wgmma), wait_for_product and packed (two neighbouring values of a row as 32 bits). */

#define TILE_M (64 * BLOCKS * CONSUMERS)
#define A_BYTES (TILE_M * ROW_BYTES)
#define B_BYTES (TILE_N * ROW_BYTES)
#define STAGE_BYTES (A_BYTES + B_BYTES)
#define WARPS (4 * CONSUMERS)
#define GROUPS_N (TILES_N / CLUSTER_N)
#define GROUPS (TILES_M / CLUSTER_M * GROUPS_N)

/* Element (row, column) of a matrix of 16-bit values with COLUMNS columns. */
static __device__ __forceinline__ char *element(const void *base, int row, int column) {
  return (char *)base + ((long long)row * COLUMNS + column) * 2;
}

/* The lane's share of 16 rows of 64 values: four times 16 bytes, a warp takes four whole rows at a time. */
#if HAS_ELEMENTS
static __device__ __forceinline__ void ask(Quad (&got)[4], const Params &p, int row, int column, int lane) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    int r = row + i * 4 + lane / 8;
    got[i] = read_global(element(p.elements, r < ROWS ? r : ROWS - 1, column + lane % 8 * 8));
  }
}
#endif

/* Finishes 16 rows by TILE_N columns of sums. */
static __device__ __forceinline__ void finish(float (&acc)[TILE_N / 2], const Params &p, u32 staging, int row, int column,
                                              int lane) {
#if HAS_ELEMENTS
  Quad ahead[4];
  ask(ahead, p, row, column, lane);
#endif
#pragma unroll
  for (int chunk = 0; chunk < TILE_N / 64; chunk++) {
    int first = column + chunk * 64;
#if HAS_ELEMENTS
#pragma unroll
    for (int i = 0; i < 4; i++) write_shared(staged(staging, i * 4 + lane / 8, lane % 8), ahead[i]);
    __syncwarp();
    if (chunk + 1 < TILE_N / 64) ask(ahead, p, row, first + 64, lane);
#endif
#pragma unroll
    for (int q = 0; q < 4; q++) {
      const float *x = acc + (chunk * 8 + q * 2) * 4;
      u32 at = staged(staging, lane / 8 % 2 * 8 + lane % 8, q * 2 + lane / 16), e[4] = {0, 0, 0, 0}, y[4];
#if HAS_ELEMENTS
      load_matrices(e, at);
#endif
      int c = first + q * 16 + lane % 4 * 2;
      y[0] = packed(p, x[0], x[1], c, e[0]);
      y[1] = packed(p, x[2], x[3], c, e[1]);
      y[2] = packed(p, x[4], x[5], c + 8, e[2]);
      y[3] = packed(p, x[6], x[7], c + 8, e[3]);
      store_matrices(at, y);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
      int r = i * 4 + lane / 8;
      Quad v = read_shared(staged(staging, r, lane % 8));
      if (row + r < ROWS) write_global(element(p.out, row + r, first + lane % 8 * 8), v);
    }
    __syncwarp();
  }
}

/* The tile of ``group`` that this processor computes. */
static __device__ __forceinline__ void place(int group, u32 rank, int &tile_m, int &tile_n) {
  tile_m = group / GROUPS_N * CLUSTER_M + (CLUSTER_M == 2 ? (int)rank : 0);
  tile_n = group % GROUPS_N * CLUSTER_N + (CLUSTER_N == 2 ? (int)rank : 0);
}

static __device__ __forceinline__ void fetch_a(const Map *a, u32 to, u32 barrier, int tile, int step, u32 rank) {
#if CLUSTER_N == 2
  fetch_for_both(to + rank * (A_BYTES / 2), a, barrier, tile * TILE_M + rank * (TILE_M / 2), step * 64);
#else
  fetch(to, a, barrier, tile * TILE_M, step * 64);
#endif
}

static __device__ __forceinline__ void fetch_b(const Map *b, u32 to, u32 barrier, int tile, int step, u32 rank) {
#if CLUSTER_M == 2
  fetch_for_both(to + A_BYTES + rank * (B_BYTES / 2), b, barrier, tile * TILE_N + rank * (TILE_N / 2), step * 64);
#else
  fetch(to + A_BYTES, b, barrier, tile * TILE_N, step * 64);
#endif
}

/* The first stages' tiles of b, which is constant, are asked for before the kernel in front has ended. */
static __device__ __forceinline__ void produce(const Map *a, const Map *b, u32 pool, u32 full, u32 empty, u32 rank) {
  int stage = 0, early = STAGES < STEPS ? STAGES : STEPS, tile_m, tile_n;
  u32 phase = 1;
  place(blockIdx.x / CLUSTER, rank, tile_m, tile_n);
  for (int step = 0; step < early; step++) {
    expect(full + 8 * step, STAGE_BYTES);
    fetch_b(b, pool + step * STAGE_BYTES, full + 8 * step, tile_n, step, rank);
  }
  WAIT_FOR_THE_KERNEL_IN_FRONT
  for (int group = blockIdx.x / CLUSTER; group < GROUPS; group += gridDim.x / CLUSTER) {
    place(group, rank, tile_m, tile_n);
    for (int step = 0; step < STEPS; step++, early--) {
      u32 barrier = full + 8 * stage, to = pool + stage * STAGE_BYTES;
      if (early <= 0) {
        wait_for(empty + 8 * stage, phase);
        expect(barrier, STAGE_BYTES);
        fetch_b(b, to, barrier, tile_n, step, rank);
      }
      fetch_a(a, to, barrier, tile_m, step, rank);
      if (++stage == STAGES) stage = 0, phase ^= 1;
    }
  }
}

static __device__ __forceinline__ void consume(const Params &p, u32 pool, u32 staging, u32 full, u32 empty, u32 rank,
                                               int consumer) {
  int stage = 0, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  u32 phase = 0;
  float acc[BLOCKS][TILE_N / 2];
  staging += (consumer * 4 + warp) * STAGING_BYTES;
  for (int group = blockIdx.x / CLUSTER; group < GROUPS; group += gridDim.x / CLUSTER) {
    int before = 0;
#pragma unroll 1
    for (int step = 0; step < STEPS; step++) {
      u32 at = pool + stage * STAGE_BYTES;
      u64 a = descriptor(at + consumer * BLOCKS * 64 * ROW_BYTES), b = descriptor(at + A_BYTES);
      wait_for(full + 8 * stage, phase);
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
      for (int k = 0; k < 4; k++)
#pragma unroll
        for (int block = 0; block < BLOCKS; block++)
          multiply(acc[block], a + k * 2 + block * (64 * ROW_BYTES / 16), b + k * 2, step | k);
      asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 1;" ::: "memory");
      if (step > 0 && lane == 0) release(empty + 8 * before);
      before = stage;
      if (++stage == STAGES) stage = 0, phase ^= 1;
    }
#pragma unroll
    for (int block = 0; block < BLOCKS; block++) wait_for_product(acc[block]);
    if (lane == 0) release(empty + 8 * before);
    int tile_m, tile_n;
    place(group, rank, tile_m, tile_n);
#pragma unroll
    for (int block = 0; block < BLOCKS; block++) {
      int row = tile_m * TILE_M + (consumer * BLOCKS + block) * 64 + warp * 16;
      if (row < ROWS) finish(acc[block], p, staging, row, tile_n * TILE_N, lane);
    }
  }
}

static __device__ __forceinline__ void work(const Map *a, const Map *b, const Params &p) {
  extern __shared__ unsigned char memory[];
  u32 pool = ((u32)__cvta_generic_to_shared(memory) + 1023) & ~1023u, staging = pool + STAGES * STAGE_BYTES;
  u32 full = staging + WARPS * STAGING_BYTES, empty = full + 8 * STAGES, rank = CLUSTER == 1 ? 0 : rank_in_cluster();
  if (threadIdx.x == 0) {
    prepare(a);
    prepare(b);
    for (int stage = 0; stage < STAGES; stage++) {
      init_barrier(full + 8 * stage, 1);
      init_barrier(empty + 8 * stage, WARPS * CLUSTER);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  meet();
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
    if (threadIdx.x == 0) {
      produce(a, b, pool, full, empty, rank);
    } else {
      WAIT_FOR_THE_KERNEL_IN_FRONT
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONSUMER_REGISTERS));
    WAIT_FOR_THE_KERNEL_IN_FRONT
    consume(p, pool, staging, full, empty, rank, threadIdx.x / 128 - 1);
  }
#if CLUSTER > 1
  __syncwarp();
  meet(); /* a processor's memory lives until the other one's last word to it */
#endif
}
