"""Calls: names, types, shapes and layouts of the arrays; arrays of the caller for the outputs; profiles."""

import ctypes

import numpy as np
import pytest

import redline
from redline.base.errors import InputError
from redline.codegen.c import isa, toolchain
from redline.codegen.c.compile import compile_objects
from redline.codegen.c.link import link
from tests.small_engines import SHAPE, small_engine

X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = redline.load(small_engine().write(tmp_path_factory.mktemp("engines") / "m.engine"))
    yield engine
    engine.close()


def same(results, x):
    for name, expected in small_engine().expected(np.asarray(x)).items():
        np.testing.assert_array_equal(results[name], expected)
        assert results[name].dtype == np.float32


def misaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(np.float32).reshape(x.shape)
    view[...] = x
    return view


def read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


class Foreign:
    """An array of another library, which lends its memory by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Wrapped:
    """Something that turns itself into an array, like a tensor of another library."""

    def __array__(self, dtype=None, copy=None):
        return X


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x, np.asfortranarray, lambda x: np.repeat(x, 2, axis=1)[:, ::2], lambda x: x[::-1].copy()[::-1], misaligned,
        read_only, lambda x: x.astype(">f4").astype("<f4"), lambda x: Wrapped(), lambda x: np.broadcast_to(x[:1], SHAPE),
        Foreign, memoryview, lambda x: x.tobytes(), lambda x: bytearray(x.tobytes()), lambda x: memoryview(x.tobytes()),
    ],
    ids=["contiguous", "fortran", "strided", "reversed", "misaligned", "read only", "swapped twice", "wrapped", "broadcast",
         "dlpack", "buffer", "bytes", "bytearray", "bytes in a view"],
)  # fmt: skip
def test_arrays_of_any_layout(engine, make):
    x = make(X)
    same(engine(x=x), x if isinstance(x, np.ndarray | Wrapped) else X)


def test_memory_of_others_is_read_where_it_is(engine):
    port = engine.inputs[0]
    for value in (X, Foreign(X), memoryview(X), X.tobytes()):
        array = port.accept(value, port.shape)
        assert array.base is not None or array is X
        assert not array.flags.owndata or array is X


def test_bytes_of_another_length(engine):
    with pytest.raises(InputError, match=r"\[input 'x'\] it is no array: 791 bytes were given; expected float32 6x33"):
        engine(x=X.tobytes()[:-1])


@pytest.mark.parametrize(
    "make", [bytearray, lambda n: memoryview(np.zeros(n, np.uint8)), lambda n: Foreign(np.zeros(SHAPE, np.float32))]
)
def test_outputs_in_memory_of_others(engine, make):
    lent = make(X.nbytes)
    results = engine.run({"x": X}, out={"z": lent})
    same(results, X)
    seen = lent.array if isinstance(lent, Foreign) else np.frombuffer(lent, np.float32).reshape(SHAPE)
    np.testing.assert_array_equal(seen, -X)


def test_bytes_cannot_be_written(engine):
    with pytest.raises(
        InputError, match=r"\[output 'z'\] bytes was given; expected float32 6x33 in a numpy array or a writable"
    ):
        engine.run({"x": X}, out={"z": X.tobytes()})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0, np.float32(1e-42)])
def test_special_values(engine, value):
    x = np.full(SHAPE, value, np.float32)
    results = engine(x=x)
    same(results, x)
    assert np.array_equal(np.signbit(results["z"]), np.signbit(-x))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "[inputs] missing: x: float32 6x33"),
        ({"y": X}, "[inputs] there is no input 'y'; known: x"),
        ({"x": X, "xx": X}, "[inputs] there is no input 'xx'; did you mean 'x'?"),
        ({"x": X, 3: X}, "[inputs] there is no input 3; known: x"),
        (
            {"x": X.astype(np.float64)},
            "[input 'x'] float64 6x33 was given; expected float32 6x33; convert it with .astype('float32')",
        ),
        ({"x": X.astype(">f4")}, "[input 'x'] >f4 6x33 was given; expected float32 6x33; convert it with .astype('float32')"),
        ({"x": X[:5]}, "[input 'x'] float32 5x33 was given; expected float32 6x33"),
        ({"x": X[None]}, "[input 'x'] float32 1x6x33 was given; expected float32 6x33"),
        ({"x": np.float32(1)}, "[input 'x'] float32 scalar was given; expected float32 6x33"),
        ({"x": "text"}, "[input 'x'] <U4 scalar was given; expected float32 6x33"),
        ({"x": None}, "[input 'x'] object scalar was given; expected float32 6x33"),
    ],
    ids=lambda value: value.split("]")[1][:30] if isinstance(value, str) else "",
)
def test_wrong_inputs_are_named(engine, inputs, message):
    with pytest.raises(InputError) as error:
        engine.run(inputs)
    assert str(error.value) == message
    same(engine(x=X), X)


def test_a_ragged_list(engine):
    with pytest.raises(InputError, match=r"\[input 'x'\] it is no array: .*; expected float32 6x33"):
        engine(x=[[1.0], [1.0, 2.0]])


def test_outputs_are_new_arrays_each_time(engine):
    first = engine(x=X)
    kept = first["y"].copy()
    engine(x=X + 1)
    np.testing.assert_array_equal(first["y"], kept)


def test_arrays_of_the_caller_for_outputs(engine):
    y = np.empty(SHAPE, np.float32)
    results = engine.run({"x": X}, out={"y": y})
    assert results["y"] is y
    assert list(results) == ["y", "z"]
    same(results, X)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ({"w": X}, "[outputs] there is no output 'w'; known: y, z"),
        (
            {"y": np.empty(SHAPE)},
            "[output 'y'] float64 6x33 was given; expected float32 6x33; convert it with .astype('float32')",
        ),
        ({"y": np.empty((33, 6), np.float32)}, "[output 'y'] float32 33x6 was given; expected float32 6x33"),
        ({"y": [1]}, "[output 'y'] list was given; expected float32 6x33 in a numpy array or a writable buffer"),
        (
            {"y": np.empty((33, 6), np.float32).T},
            "[output 'y'] the array is not contiguous, aligned and writable; expected float32 6x33; make it with numpy.empty",
        ),
        (
            {"y": read_only(X)},
            "[output 'y'] the array is not contiguous, aligned and writable; expected float32 6x33; make it with numpy.empty",
        ),
    ],
    ids=["name", "type", "shape", "list", "layout", "read only"],
)
def test_wrong_outputs_are_named(engine, out, message):
    with pytest.raises(InputError) as error:
        engine.run({"x": X}, out=out)
    assert str(error.value) == message


def test_outputs_share_no_memory_with_other_arrays(engine):
    x, y = X.copy(), np.empty(SHAPE, np.float32)
    for out in ({"y": x}, {"y": y, "z": y}):
        with pytest.raises(InputError, match="shares memory with another array of the call"):
            engine.run({"x": x}, out=out)


def test_contexts_do_not_disturb_each_other(engine):
    a, b = engine.context(), engine.context(num_threads=1)
    first = a.run({"x": X})
    same(b.run({"x": X + 1}), X + 1)
    same(first, X)
    same(a.run({"x": X - 1}), X - 1)


def test_a_profile_has_a_time_for_every_step_of_every_run(engine):
    seconds = engine.profile({"x": X}, repeats=5)
    assert seconds.shape == (5, len(engine.header.kernels))
    assert (seconds > 0).all()
    same(engine(x=X), X)
    assert engine.profile({"x": X}, repeats=0).shape == (0, 4)


FLOAT_MODE = """
#define EXPORT __attribute__((visibility("default")))
EXPORT unsigned get_mode(void) { return __builtin_ia32_stmxcsr(); }
EXPORT void set_mode(unsigned mode) { __builtin_ia32_ldmxcsr(mode); }
"""
FLUSH_DENORMALS = 0x8040  # flush to zero, denormals are zero


@pytest.fixture
def float_mode(tmp_path):
    """The functions that read and set the thread's floating-point control register."""
    tools = toolchain.find()
    (tmp_path / "mode.so").write_bytes(link(compile_objects([FLOAT_MODE], isa.target("generic"), tools), tools))
    library = ctypes.CDLL(str(tmp_path / "mode.so"))
    before = library.get_mode()
    yield library
    library.set_mode(before)


def test_the_callers_float_mode_changes_nothing(engine, float_mode):
    """Denormals are kept even when another library has told the caller's thread to flush them; its mode is left as it was."""
    x = np.full(SHAPE, 1e-42, np.float32)
    mode = float_mode.get_mode() | FLUSH_DENORMALS
    context = engine.context(num_threads=1)
    float_mode.set_mode(mode)
    results = context.run({"x": x})
    assert float_mode.get_mode() == mode
    float_mode.set_mode(mode & ~FLUSH_DENORMALS)
    np.testing.assert_array_equal(results["z"].view(np.uint32), (-x).view(np.uint32))
