"""Text of the instructions by which kernels in CUDA C for Hopper multiply, for which hopper.h would need a macro a width."""


def multiply(name: str, columns: int, half: str) -> str:
    """acc += a * b, or acc = a * b where ``more`` is 0: 64 rows, ``columns`` columns, 16 elements of k, from shared memory."""
    count = columns // 2
    return f"""
static __device__ __forceinline__ void {name}(float (&acc)[{count}], unsigned long long a, unsigned long long b, int more) {{
  asm volatile("{{\\n.reg .pred more;\\nsetp.ne.b32 more, %{count + 2}, 0;\\n"
      "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{half}.{half} {{{registers(count)}}}, "
      "%{count}, %{count + 1}, more, 1, 1, 0, 0;\\n}}"
      : {in_and_out(count)} : "l"(a), "l"(b), "r"(more));
}}
"""


def finish(name: str, columns: int) -> str:
    """Waits until the products that are under way are in ``acc``."""
    count = columns // 2
    return f"""
static __device__ __forceinline__ void {name}(float (&acc)[{count}]) {{
  asm volatile("wgmma.wait_group.sync.aligned 0;" : {in_and_out(count)} :: "memory");
}}
"""


def registers(count: int) -> str:
    """The first operands of an instruction, by number."""
    return ", ".join(f"%{i}" for i in range(count))


def in_and_out(count: int) -> str:
    """The elements of ``acc`` as operands that are read and written."""
    return ", ".join(f'"+f"(acc[{i}])' for i in range(count))
