"""Damaged models from end to end: built, run and compared with the interpreter, or refused with a sentence.

    python -m tests.builder.fuzz_models FIRST COUNT

prints the seed before and the outcome after each model, so that whoever started it knows what was the end of it.
Half of the models have bytes changed anywhere, half are sound files whose fields were changed.
"""

import faulthandler
import random
import sys
import traceback

import numpy as np
import onnx

import redline
from redline import frontend, ops
from redline.base import dtypes
from redline.base.errors import RedlineError
from redline.cli.comparison import compare
from redline.ir import CONSTANT, Graph
from tests.builder import bundle, test_graphs
from tests.builder.processes import limit_memory

MEMORY = 6 << 30  # of addresses: clang alone reserves more than a GiB
MEMORY_LIMIT = 256 << 20  # of the engine
PATIENCE = 120  # seconds for one model; most take a tenth of one
LARGEST_RUN = 1 << 22  # elements of inputs and outputs
NAMES = (
    "projections_of_one_input",
    "an_upsampling_path",
    "rows_in_the_middle",
    "concatenations_of_concatenations",
    "a_residual_block",
)
INTERESTING = (0, 1, -1, 2, 3, 7, 64, 255, 1 << 16, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63))
OPERATORS = (
    "Add",
    "Mul",
    "MatMul",
    "Conv",
    "Relu",
    "Softmax",
    "Concat",
    "Transpose",
    "Reshape",
    "Resize",
    "Nothing",
    "Loop",
    "If",
)


def originals() -> list[onnx.ModelProto]:
    return [bundle.model([case], prefixed=False) for case in test_graphs.cases() if case.name in NAMES]


def changed_bytes(model: onnx.ModelProto, rng: random.Random) -> bytes:
    content = bytearray(model.SerializeToString())
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(content))
        match rng.randrange(4):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at] = rng.randrange(256)
            case 2:
                del content[at : at + rng.choice((1, 4, 100))]
            case 3:
                content[at:at] = content[: rng.choice((1, 4, 100))]
    return bytes(content)


def changed_fields(original: onnx.ModelProto, rng: random.Random) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(original)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice((_attribute, _attribute, _constant, _constant, _wiring, _wiring, _operator, _input, _dims))(model.graph, rng)
    return model.SerializeToString()


def _attribute(graph: onnx.GraphProto, rng: random.Random) -> None:
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    if not attributes:
        return
    attribute = rng.choice(attributes)
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(INTERESTING)
        if rng.randrange(4) == 0:
            attribute.ints.append(rng.choice(INTERESTING))
    else:
        attribute.i = rng.choice(INTERESTING)
        attribute.f = rng.choice((0.0, -1.0, 1e30, float("nan")))


def _constant(graph: onnx.GraphProto, rng: random.Random) -> None:
    """Integers are shapes, axes and places: each becomes another."""
    integers = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT64 and tensor.dims != [0]]
    if not integers:
        return
    tensor = rng.choice(integers)
    values = np.frombuffer(tensor.raw_data, np.int64).copy()  # its dims may have been changed before
    if values.size:
        values[rng.randrange(values.size)] = rng.choice(INTERESTING)
    tensor.raw_data = values.tobytes()


def _wiring(graph: onnx.GraphProto, rng: random.Random) -> None:
    names = [name for node in graph.node for name in (*node.input, *node.output)] + ["", "nowhere"]
    node = rng.choice(graph.node)
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _operator(graph: onnx.GraphProto, rng: random.Random) -> None:
    rng.choice(graph.node).op_type = rng.choice(OPERATORS)


def _input(graph: onnx.GraphProto, rng: random.Random) -> None:
    kind = rng.choice(graph.input).type.tensor_type
    if rng.randrange(3) == 0:
        kind.elem_type = rng.randrange(25)
    elif kind.shape.dim:
        rng.choice(kind.shape.dim).dim_value = rng.choice(INTERESTING)


def _dims(graph: onnx.GraphProto, rng: random.Random) -> None:
    tensors = [tensor for tensor in graph.initializer if tensor.dims]
    if tensors:
        tensor = rng.choice(tensors)
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(INTERESTING)


def outcome(content: bytes) -> str:
    """ "refused", "same", or "not compared" where numbers have no agreed value; raises AssertionError for another answer."""
    try:
        engine = redline.build(content, opt_level=0, memory_limit=MEMORY_LIMIT)
    except RedlineError as error:
        assert str(error).startswith("["), error
        return "refused"
    sizes = [int(np.prod(io.shape)) for io in engine.header.inputs + engine.header.outputs]
    if sum(sizes) > LARGEST_RUN:
        return "not compared"
    rng = np.random.default_rng(0)
    feeds = {io.name: rng.integers(-2, 3, io.shape).astype(dtypes.from_name(io.dtype).numpy) for io in engine.header.inputs}
    found = engine.run(feeds)
    graph = frontend.load(content)
    if not _is_tame(graph):
        return "not compared"
    verdicts = compare(ops.run(graph, feeds), found)
    assert all(verdict.passed for verdict in verdicts), [str(verdict) for verdict in verdicts if not verdict.passed]
    return "same"


def _is_tame(graph: Graph) -> bool:
    """Whether no constant is so large that an order of summation decides the answer."""
    arrays = [node.attrs["value"] for node in graph.nodes if node.op == CONSTANT]
    floats = [array.astype(np.float64) for array in arrays if array.dtype.kind not in "iub"]
    return all(bool((np.abs(array) < 1e3).all()) for array in floats)


def main(first: int, count: int) -> None:
    limit_memory(MEMORY)
    models = originals()
    for seed in range(first, first + count):
        rng = random.Random(seed)
        print(seed, end=" ", flush=True)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        content = (changed_bytes, changed_fields)[seed % 2](rng.choice(models), rng)
        try:
            print(outcome(content), flush=True)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())[:200]
            print(f"BUG {type(error).__name__} at {place.filename.rpartition('/')[2]}:{place.lineno}: {text}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
