"""What frames the body of a Triton kernel: its module with the helpers that it uses, and how kernels follow each other."""

from collections.abc import Mapping, Sequence

from redline.base.extents import dims_in
from redline.kernels.gpu import GpuTarget

HEAD = "import triton\nimport triton.language as tl\n"
HELPERS = {
    "rl_erf": '''@triton.jit
def rl_erf(x):
    """A polynomial up to 3.2, where erf is 1 - 6e-6: within 3e-5 of erf, and no exponential."""
    a = tl.minimum(tl.maximum(x, -3.2, propagate_nan=tl.PropagateNan.ALL), 3.2, propagate_nan=tl.PropagateNan.ALL)
    u = a * a
    p = -2.400004417424384e-09 * u + 1.4191016361e-07
    p = p * u - 3.739670319e-06
    p = p * u + 5.84660374443e-05
    p = p * u - 0.000611284049
    p = p * u + 0.0045840931125
    p = p * u - 0.0258143171668
    p = p * u + 0.1118641793728
    p = p * u - 0.3757072389126
    p = p * u + 1.1283257007599
    return a * p
''',
    "rl_gelu": '''@triton.jit
def rl_gelu(x):
    """x * (1 + erf(x / sqrt 2)) / 2; the factor of x is within 1.1e-5, its polynomial ends at 4.17."""
    a = tl.minimum(tl.maximum(x, -4.17, propagate_nan=tl.PropagateNan.ALL), 4.17, propagate_nan=tl.PropagateNan.ALL)
    u = a * a
    p = 6.272848906974104e-11 * u - 5.823532767124107e-09
    p = p * u + 2.397588900748815e-07
    p = p * u - 5.841323400090914e-06
    p = p * u + 9.525453788228333e-05
    p = p * u - 0.001117375330068171
    p = p * u + 0.009838158264756203
    p = p * u - 0.06636921316385269
    p = p * u + 0.3989102244377136
    return x * (a * p + 0.5)
''',
    "rl_tf32": '''@triton.jit
def rl_tf32(x):
    """To the nearest number of 10 bits of mantissa; tensor cores by themselves cut the bits off, which shrinks every sum."""
    return tl.inline_asm_elementwise("cvt.rna.tf32.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1)
''',
    "rl_upper": '''@triton.jit
def rl_upper(x):
    """(x + 2^15) / 2^16 of a uint16 below 2^15."""
    return tl.inline_asm_elementwise(
        "prmt.b32 $0, $2, 0x3F000000, 0x7104; prmt.b32 $1, $2, 0x3F000000, 0x7324;",
        "=r,=r,r", [x], dtype=tl.float32, is_pure=True, pack=2,
    )
''',
    "rl_rint": '''@triton.jit
def rl_rint(x):
    """Halves to the even neighbour: what is added leaves no bits for fractions; larger numbers have none."""
    return tl.where(tl.abs(x) < 4194304.0, (x + 12582912.0) - 12582912.0, x)
''',
    "rl_rint32": '''@triton.jit
def rl_rint32(x):
    """The same as an integer, for numbers below 2^22: the low bits of the sum."""
    return (x + 12582912.0).to(tl.int32, bitcast=True) - 0x4B400000
''',
    "rl_tanh": '''@triton.jit
def rl_tanh(x):
    """1 - 2 / (exp(2 x) + 1): within 1e-7 of tanh."""
    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)
''',
    "rl_floordiv": '''@triton.jit
def rl_floordiv(a, b):
    """Integer division towards minus infinity; by zero gives zero."""
    d = tl.where(b == 0, 1, b)
    q = a // d
    q = tl.where((q * d != a) & ((a < 0) != (d < 0)), q - 1, q)
    return tl.where(b == 0, 0, q)
''',
    "rl_div": '''@triton.jit
def rl_div(a, b):
    """Integer division towards zero; by zero gives zero."""
    return tl.where(b == 0, 0, a // tl.where(b == 0, 1, b))
''',
    "rl_max": """@triton.jit
def rl_max(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
""",
    "rl_min": """@triton.jit
def rl_min(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
""",
    "rl_mul": """@triton.jit
def rl_mul(a, b):
    return a * b
""",
    "rl_add": """@triton.jit
def rl_add(a, b):
    return a + b
""",
}


def module(params: Sequence[str], body: Sequence[str], parts: Mapping[str, Sequence[str]] | None = None) -> str:
    """The text of a module with KERNEL in it, and the helpers that it names.

    The open dimensions that it names become further parameters. ``parts`` are bodies of functions of the same parameters, which
    KERNEL may call; none of them names a dimension.
    """
    functions = {**(parts or {}), "KERNEL": body}
    named = dims_in("\n".join(line for lines in functions.values() for line in lines))
    params = [*params, *(f"dims{number}" for number in named)]
    texts = [
        f"@triton.jit\ndef {name}({', '.join(params)}):\n" + "".join(f"    {line}\n" for line in lines)
        for name, lines in functions.items()
    ]
    text = "\n\n".join(texts)
    head = HEAD
    if "libdevice." in text:
        head += "from triton.language.extra.cuda import libdevice\n"
    used = [helper for name, helper in HELPERS.items() if f"{name}(" in text or f" {name})" in text]
    return "\n\n".join([head, *used, text])


def wait(target: GpuTarget, meanwhile: Sequence[str] = (), eager: bool = False) -> list[str]:
    """Statements that stand before the first read of what an earlier kernel wrote; ``meanwhile`` needs nothing of that.

    The next kernel may start once all of this one has come here (``eager``: before the wait): it waits for all of this
    one, and this one for all before it.
    """
    if not target.overlap or target.plain or target.arch < 90:
        return []
    start, end = "tl.extra.cuda.gdc_launch_dependents()", "tl.extra.cuda.gdc_wait()"
    return [start, *meanwhile, end] if eager else [*meanwhile, end, start]


def prefetch(pointer: str, num_bytes: int, programs: int, program: str, num_warps: int) -> list[str]:
    """Statements that bring ``num_bytes`` of constants into the L2 cache, a share of them by each of ``programs``.

    One thread asks for its program's share: the engine that copies takes one request at a time.
    """
    share = -(-num_bytes // (programs * 128)) * 128
    asm = f"{{ .reg .pred p; setp.ne.s32 p, $2, 0; @p cp.async.bulk.prefetch.L2.global [$1], {share}; mov.u32 $0, 0; }}"
    return [
        f"thread = tl.arange(0, {32 * num_warps})",
        f"ahead = (({program}) * {share} + thread * 0).to(tl.int64)",
        f'tl.inline_asm_elementwise("{asm}", "=r,l,r", [{pointer}.to(tl.int64) + ahead, '
        f"((thread == 0) & (ahead <= {num_bytes - share})).to(tl.int32)], dtype=tl.int32, is_pure=False, pack=1)",
    ]
