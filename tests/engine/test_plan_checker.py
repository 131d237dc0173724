"""The plan checker: the small engine's plan is right, and each planted error is named."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.base.errors import EngineError
from redline.engine import Access, Header, check_plan
from redline.engine.verify import Region, _cuts
from tests.small_engines import SIZE, small_engine

WEIGHT_BYTES = small_engine().weights.nbytes


@pytest.fixture
def header() -> Header:
    return small_engine().header


def with_tensor(header: Header, index: int, **changes) -> Header:
    tensors = list(header.tensors)
    tensors[index] = replace(tensors[index], **changes)
    return replace(header, tensors=tuple(tensors))


def with_kernel(header: Header, step: int, **changes) -> Header:
    kernels = list(header.kernels)
    kernels[step] = replace(kernels[step], **changes)
    return replace(header, kernels=tuple(kernels))


def with_read(header: Header, step: int, index: int, **changes) -> Header:
    reads = list(header.kernels[step].reads)
    reads[index] = replace(reads[index], **changes)
    return with_kernel(header, step, reads=tuple(reads))


def with_write(header: Header, step: int, **changes) -> Header:
    return with_kernel(header, step, writes=(replace(header.kernels[step].writes[0], **changes),))


def refused(header: Header, message: str, weight_bytes: int = WEIGHT_BYTES) -> None:
    with pytest.raises(EngineError) as error:
        check_plan(header, weight_bytes, "m.engine")
    assert message in str(error.value)
    assert str(error.value).startswith("[m.engine] its plan is wrong: ")


def test_a_right_plan_passes(header):
    check_plan(header, WEIGHT_BYTES, "m.engine")


def test_an_empty_plan_passes(header):
    check_plan(replace(header, outputs=(), kernels=(), tensors=()), 0, "m.engine")


@pytest.mark.parametrize("field", ["arena_bytes", "scratch_bytes", "num_threads"])
@pytest.mark.parametrize("value", [-1, 1 << 80])
def test_sizes_out_of_range(header, field, value):
    refused(replace(header, **{field: value}), f"{field} is {value}")


def test_an_unknown_data_type(header):
    refused(replace(header, inputs=(replace(header.inputs[0], dtype="float31"),)), "x: unknown data type 'float31'")


@pytest.mark.parametrize("shape", [(-1, 33), (1 << 61, 8), (1,) * 65])
def test_shapes_out_of_range(header, shape):
    refused(replace(header, inputs=(replace(header.inputs[0], shape=shape),)), "x has shape")


def test_names_occur_once(header):
    refused(replace(header, inputs=header.inputs * 2), "two inputs have the same name")
    refused(replace(header, outputs=header.outputs * 2), "two outputs have the same name")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "heap"}, "tensor 't' is in space 'heap'"),
        ({"offset": 4}, "tensor 't' at bytes 4..796 does not fit the arena"),
        ({"offset": -64}, "tensor 't' at bytes -64..728 does not fit the arena"),
        ({"offset": 1600}, "does not fit the arena"),
        ({"num_bytes": -64}, "does not fit the arena"),
        ({"num_bytes": 1 << 70}, "does not fit the arena"),
        ({"first_step": -1}, "tensor 't' lives from step -1 to 2"),
        ({"last_step": 4}, "tensor 't' lives from step 0 to 4"),
        ({"first_step": 3, "last_step": 2}, "tensor 't' lives from step 3 to 2"),
        ({"first_step": 1}, "step 0 uses tensor 't', alive from step 1 to 2"),
        ({"last_step": 1}, "step 2 uses tensor 't', alive from step 0 to 1"),
        ({"num_bytes": SIZE * 4 - 4}, "step 0 touches bytes 0..792 of arena 't', which has 788"),
        ({"offset": 832}, "tensors 't' and 'u' share bytes of the arena in step 1"),
        ({"offset": 64, "num_bytes": 832}, "tensors 't' and 'u' share bytes of the arena in step 1"),
    ],
)
def test_tensors(header, changes, message):
    refused(with_tensor(header, 0, **changes), message)


def test_weights_must_hold_the_constants(header):
    refused(header, "tensor 'w' at bytes 64..856 does not fit the weights", WEIGHT_BYTES - 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_chunks": 0}, "step 0 (plus) has 0 chunks"),
        ({"num_chunks": 1 << 31}, "chunks"),
        ({"symbol": "a b"}, "step 0 has symbol 'a b'"),
        ({"symbol": "ä"}, "step 0 has symbol 'ä'"),
    ],
)
def test_kernels(header, changes, message):
    refused(with_kernel(header, 0, **changes), message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "heap"}, "step 0 uses 'heap' number 0, which does not exist"),
        ({"tensor": 1}, "step 0 uses 'input' number 1, which does not exist"),
        ({"tensor": -1}, "step 0 uses 'input' number -1, which does not exist"),
        ({"space": "weights"}, "step 0 takes tensor 't' of the arena for one of the weights"),
        ({"offset": 4}, "step 0 touches bytes 4..796 of input 'x', which has 792"),
        ({"offset": -4}, "step 0 touches bytes -4..788 of input 'x'"),
        ({"strides": (34, 1)}, "touches bytes 0..812"),
        ({"strides": (33, -1)}, "touches bytes -128..664"),
        ({"strides": (33,)}, "step 0 has an access of shape (6, 33) with strides (33,)"),
        ({"strides": (1 << 62, 1)}, "with strides"),
        ({"dtype": "float64"}, "touches bytes 0..1584"),
        ({"dtype": "string"}, "step 0: unknown data type 'string'"),
        ({"shape": (-6, 33)}, "an access of step 0 has shape (-6, 33)"),
    ],
)
def test_accesses(header, changes, message):
    refused(with_read(header, 0, 0, **changes), message)


@pytest.mark.parametrize(
    "changes",
    [{"strides": (0, 0)}, {"shape": (0, 33)}, {"shape": (), "strides": ()}, {"offset": 128, "strides": (33, -1)}],
    ids=["broadcast", "empty", "scalar", "reversed"],
)
def test_views_inside_their_tensor_pass(header, changes):
    check_plan(with_read(header, 0, 0, **changes), WEIGHT_BYTES, "m.engine")


def test_constants_and_inputs_are_not_written(header):
    refused(with_write(header, 0, space="input", tensor=0), "step 0 (plus) writes a constant or an input")
    refused(with_write(header, 0, space="weights", tensor=2), "step 0 (plus) writes a constant or an input")


def test_a_read_before_the_write(header):
    early = with_tensor(header, 1, first_step=0)
    refused(with_read(early, 0, 0, space="arena", tensor=1), "step 0 (plus) reads arena 'u' before anything has written it")


def test_an_output_that_is_not_written_whole(header):
    refused(with_write(header, 3, shape=(5, 33)), "only 660 of the 792 bytes of output 'z' are written")


def test_a_missing_barrier(header):
    refused(with_kernel(header, 2, barrier=False), "steps 0 and 2 touch the same bytes, and no barrier is between them")


def test_two_steps_write_the_same_bytes_at_once(header):
    both = with_write(header, 3, tensor=0)
    refused(replace(both, outputs=both.outputs[:1]), "steps 2 and 3 touch the same bytes, and no barrier is between them")


def test_a_place_is_taken_over_while_its_last_reader_may_still_run(header):
    """u takes t's bytes of the arena in the step after t's last reader."""
    plus, twice, scale, negative = header.kernels
    reader = replace(negative, reads=scale.reads[:1], barrier=True)
    last = replace(scale, reads=(scale.reads[1], *scale.reads[1:]))
    plan = with_tensor(replace(header, kernels=(plus, reader, replace(twice, barrier=True), last)), 0, last_step=1)
    plan = with_tensor(plan, 1, offset=0, first_step=2, last_step=3)
    check_plan(plan, WEIGHT_BYTES, "m.engine")
    refused(with_kernel(plan, 2, barrier=False), "steps 1 and 2 touch the same bytes, and no barrier is between them")


def test_a_step_that_overwrites_what_it_reads(header):
    in_place = with_kernel(with_tensor(header, 0, last_step=3), 3, reads=(replace(header.kernels[0].writes[0]),), barrier=True)
    same = with_write(in_place, 3, space="arena", tensor=0)
    one_output = replace(same, outputs=same.outputs[:1])
    check_plan(one_output, WEIGHT_BYTES, "m.engine")
    turned = with_read(one_output, 3, 0, shape=(33, 6), strides=(6, 1))
    refused(turned, "step 3 overwrites what it still reads")


def test_a_step_that_writes_the_same_bytes_twice(header):
    refused(with_kernel(header, 0, writes=header.kernels[0].writes * 2), "step 0 writes the same bytes twice")


def test_too_many_steps_without_a_barrier(header):
    many = with_tensor(replace(header, kernels=header.kernels + header.kernels[3:] * 600), 1, last_step=2)
    refused(many, "602 steps follow each other without a barrier")


def test_channel_slices_of_one_tensor_are_apart(header):
    """Two steps write halves of the channels of t at the same time, as a concatenation does."""
    halves = [Access("arena", 0, offset, "float32", (11, 9), (18, 1)) for offset in (0, 36)]
    plan = with_kernel(with_kernel(header, 0, writes=(halves[0],)), 1, writes=(halves[1],))
    plan = with_read(plan, 2, 1, tensor=0)
    check_plan(plan, WEIGHT_BYTES, "m.engine")
    wide = Access("arena", 0, 36, "float32", (10, 10), (18, 1))
    refused(with_kernel(plan, 1, writes=(wide,)), "steps 0 and 1 touch the same bytes")


def region(size: int, offset: int, dims: list[tuple[int, int]]) -> tuple[Region, set[int]]:
    """A view as the checker sees it, and the bytes that it really touches."""
    moves = [(dim, stride * size) for dim, stride in dims if dim > 1]
    touched = {offset}
    for dim, stride in moves:
        touched = {byte + i * stride for byte in touched for i in range(dim)}
    touched = {byte + i for byte in touched for i in range(size)}
    return Region(("arena", 0), min(touched), max(touched) + 1, _cuts(moves, size)), touched


DIMS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from([-12, -6, -2, -1, 0, 1, 2, 3, 4, 6, 12, 24])), max_size=3)
VIEW = st.tuples(st.sampled_from([1, 2, 4]), st.integers(0, 40), DIMS)


@settings(max_examples=1000, deadline=None)
@given(VIEW, VIEW)
def test_views_that_meet_are_never_taken_for_apart(a, b):
    (ours, our_bytes), (theirs, their_bytes) = region(*a), region(*b)
    if our_bytes & their_bytes:
        assert ours.may_meet(theirs) and theirs.may_meet(ours)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.sampled_from([1, 2, 4]))
def test_neighbouring_channel_slices_are_known_to_be_apart(first, second, rows, gap, size):
    stride = first + gap + second
    ours, our_bytes = region(size, 0, [(rows, stride), (first, 1)])
    theirs, their_bytes = region(size, (first + gap) * size, [(rows, stride), (second, 1)])
    assert not our_bytes & their_bytes
    assert not ours.may_meet(theirs)


def test_halves_of_halves_are_known_to_be_apart():
    """A concatenation along one axis inside one along another: rows of rows, none of them contiguous."""
    part = [(6, 64), (4, 8), (4, 1)]
    parts = [region(4, 4 * offset, part) for offset in (0, 4, 32, 36)]
    for i, (ours, _) in enumerate(parts):
        assert [ours.may_meet(theirs) for theirs, _ in parts] == [i == j for j in range(4)]


def test_a_plan_of_many_steps_is_checked_quickly(header):
    """Chains of thousands of steps, as large models have: no rule compares every step with every other."""
    count = 4000
    access = header.kernels[0].writes[0]
    kernels = [replace(header.kernels[0], writes=(access,))]
    kernels += [replace(header.kernels[0], reads=(access,), writes=(access,)) for _ in range(count)]
    kernels += [replace(header.kernels[0], writes=(replace(access, space="output", tensor=i),)) for i in range(2)]
    plan = replace(header, kernels=tuple(kernels), tensors=(replace(header.tensors[0], last_step=count),))
    check_plan(plan, WEIGHT_BYTES, "m.engine")
