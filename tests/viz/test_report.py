"""The page of a report: well formed, complete, and closed to what names may carry."""

from html.parser import HTMLParser

import pytest

from redline.base.ceilings import Ceilings
from redline.engine import IO, Access, Header, KernelRecord, Stamp, TensorPlan
from redline.viz.report import Contestant, Measured, report
from redline.viz.work import arithmetic, kinds, limit_s

CEILINGS = Ceilings(2, {"float32": 200e9, "bfloat16": 400e9, "int8": 800e9}, memory=40e9, cache=100e9)
EVIL = '<script>alert("1")</script>&'
VOID = {"meta"}


def access(space, dtype, *shape):
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return Access(space, 0, 0, dtype, shape, tuple(strides))


def kernel(symbol, family, dtype, nodes=("n",), flops=2 * 64 * 64 * 64):
    reads = (access("input", dtype, 64, 64), access("weights", dtype, 64, 64))
    return KernelRecord(symbol, family, nodes, 1, True, reads, (access("arena", "float32", 64, 64),), flops, 49152, "S()")


def header(kernels, facts=None):
    arena = (TensorPlan("t0", "arena", 0, 64, 0, 0), TensorPlan(EVIL, "arena", 64, 64, 0, len(kernels) - 1))
    io = (IO("x", "float32", (64, 64)),)
    return Header(Stamp("avx512", (), "1", "clang"), io, io, arena, tuple(kernels), 128, 0, 2, facts or {})


class Tags(HTMLParser):
    """Elements that are opened and closed in order, and what they are."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.words = [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_a_page_is_well_formed_and_names_are_text():
    layers = [{"layer": EVIL, "precision": "int8", "fp32_us": 2.0, "int8_us": None, "noise": 1e-4}]
    plan = header([kernel("a", "matmul", "float32", (EVIL,)), kernel("b", EVIL, "float32")], {"layers": layers})
    contestants = [Contestant(EVIL, 1e-3, 2e-3), Contestant("other", 2e-3, 3e-3)]
    page = Tags(report(Measured(EVIL, "a machine", plan, [5e-6, 1e-6], contestants, CEILINGS)))
    assert "script" not in {tag for tag, _ in page.seen}
    assert page.words.count(EVIL) >= 4
    assert not any(key in ("src", "href", "onload") for _, attributes in page.seen for key in attributes)
    assert {"Latency", "Roofline", "Kernels", "Memory", "Precision, layer by layer"} <= set(page.words)
    assert any("2.00 times the engine's" in words for words in page.words)


@pytest.mark.parametrize("seconds", [[], [0.0], [0.0, 0.0]])
def test_no_steps_and_no_time(seconds):
    plan = header([kernel(str(number), "matmul", "float32") for number in range(len(seconds))])
    page = Tags(report(Measured("t", "m", plan, seconds, [Contestant("t", 0.0, 0.0)], None)))
    assert "Roofline" not in page.words


def test_the_boxes_of_the_steps_add_up_to_the_rows():
    plan = header([kernel(str(number), "matmul", "float32") for number in range(3)])
    page = Tags(report(Measured("t", "m", plan, [7e-6, 1e-6, 2e-6], [Contestant("t", 1e-5, 1e-5)], None)))
    boxes = [float(a["width"]) for tag, a in page.seen if tag == "rect" and a["height"] == "46"]
    assert sum(boxes) == pytest.approx(4 * 1200, rel=1e-4)


def test_kinds_add_up_equal_kernels_and_the_largest_loss_stands_first():
    records = [kernel("a", "matmul", "float32"), kernel("b", "matmul", "bfloat16"), kernel("a", "matmul", "float32")]
    a, b = kinds(records, [10e-6, 4e-6, 12e-6], CEILINGS)
    assert (a.record.symbol, a.steps, a.seconds) == ("a", (0, 2), 22e-6)
    assert a.limit_s == pytest.approx(2 * 524288 / 200e9)
    assert b.limit_s == pytest.approx(524288 / 400e9)
    assert kinds(records, [1e-6, 2e-6, 1e-6], None)[0].limit_s == 0


def test_a_kernel_of_few_operations_is_limited_by_its_bytes():
    record = kernel("a", "nest", "float32", flops=10)
    assert limit_s(record, CEILINGS) == pytest.approx(16384 / 40e9 + 32768 / 100e9)


@pytest.mark.parametrize(
    ("family", "dtype", "kind"),
    [
        ("matmul", "bfloat16", "bfloat16"),
        ("nest", "bfloat16", "float32"),
        ("conv", "uint8", "int8"),
        ("conv", "float16", "float32"),
    ],
)
def test_the_type_in_which_a_kernel_multiplies(family, dtype, kind):
    assert arithmetic(kernel("a", family, dtype), CEILINGS) == kind
    assert arithmetic(kernel("a", family, dtype), Ceilings(1, {"float32": 1e9}, 1e9, 1e9)) == "float32"
