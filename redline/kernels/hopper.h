/* What kernels in CUDA C for Hopper share: barriers, the copy engine, tiles in shared memory.

   A tile's rows have 128 bytes (64 values of 16 bits), swizzled: 16-byte piece i of row r lies at place i ^ (r % 8). In front of
   this stands CLUSTER, the processors that work together (1 or 2). */

#define ROW_BYTES 128
#define STAGING_BYTES 2048 /* of a warp: 16 rows of 64 values */

struct alignas(64) Map { unsigned long long words[16]; };
typedef unsigned int u32;
typedef unsigned long long u64;

static __device__ __forceinline__ void init_barrier(u32 at, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory");
}

static __device__ __forceinline__ void expect(u32 at, u32 num_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(num_bytes) : "memory");
}

static __device__ __forceinline__ void wait_for(u32 at, u32 parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(at), "r"(parity) : "memory");
}

/* Tells every processor of the cluster that a warp is done with a stage. */
static __device__ __forceinline__ void release(u32 at) {
#if CLUSTER == 1
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
#else
  for (int rank = 0; rank < CLUSTER; rank++)
    asm volatile(
        "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(at), "r"(rank) : "memory");
#endif
}

/* Brings a tensor map near, before it is used. */
static __device__ __forceinline__ void prepare(const Map *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

/* A box whose first element is (row, k), to this processor's shared memory. */
static __device__ __forceinline__ void fetch(u32 to, const Map *map, u32 barrier, int row, int k) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(k), "r"(row) : "memory");
}

/* The same to the same place of both processors. */
static __device__ __forceinline__ void fetch_for_both(u32 to, const Map *map, u32 barrier, int row, int k) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%4, %5}], [%2], %3;" ::"r"(to),
      "l"(map), "r"(barrier), "h"((unsigned short)3), "r"(k), "r"(row) : "memory");
}

static __device__ __forceinline__ u64 descriptor(u32 at) {
  return (u64)((at & 0x3FFFF) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

static __device__ __forceinline__ u32 rank_in_cluster() {
  u32 rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

static __device__ __forceinline__ void meet() {
#if CLUSTER == 1
  __syncthreads();
#else
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

static __device__ __forceinline__ void load_matrices(u32 (&x)[4], u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at) : "memory");
}

static __device__ __forceinline__ void store_matrices(u32 at, const u32 (&x)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(x[0]), "r"(x[1]), "r"(x[2]),
               "r"(x[3]) : "memory");
}

struct Quad { u32 x, y, z, w; };

static __device__ __forceinline__ Quad read_shared(u32 at) {
  Quad v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at) : "memory");
  return v;
}

static __device__ __forceinline__ void write_shared(u32 at, Quad v) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

static __device__ __forceinline__ Quad read_global(const void *at) {
  Quad v;
  asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at) : "memory");
  return v;
}

static __device__ __forceinline__ void write_global(void *at, Quad v) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

/* The bytes of 16-byte piece ``piece`` of row ``row`` in a warp's staging area. */
static __device__ __forceinline__ u32 staged(u32 staging, int row, int piece) {
  return staging + row * 128 + ((piece ^ (row & 7)) << 4);
}
