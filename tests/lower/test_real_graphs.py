"""The real networks, lowered and not compiled: few kernels, plans that the checker accepts."""

from functools import cache

import pytest
import zoo

from redline import frontend, passes
from redline.lower import Program, lower, plan
from tests import skeletons
from tests.lower import machine

MOST_KERNELS = {"resnet50": 56, "mobilenetv2": 54, "yolov5s": 80, "vit_b16": 90, "bert_base": 90, "minilm": 50, "digits": 6}
LARGE = ("resnet50", "vit_b16", "bert_base")


@cache
def nodes_and_program(name: str) -> tuple[int, Program]:
    graph = frontend.load(skeletons.load(name), shapes=zoo.shapes(name))
    return sum(1 for _ in graph.operations), lower(passes.optimize(graph))


@pytest.mark.parametrize("name", skeletons.NAMES)
def test_fusion_leaves_few_kernels(name: str) -> None:
    num_nodes, program = nodes_and_program(name)
    assert len(program.steps) <= MOST_KERNELS[name] < num_nodes


@pytest.mark.parametrize("name", skeletons.NAMES)
def test_every_kernel_says_which_nodes_it_came_from(name: str) -> None:
    _, program = nodes_and_program(name)
    assert all(step.nodes and step.reason for step in program.steps)


@pytest.mark.parametrize("name", skeletons.NAMES)
def test_the_arena_is_no_larger_than_two_of_its_largest_moments(name: str) -> None:
    """What is alive in a phase must fit; what the plan takes beyond that is lost between the pieces."""
    _, program = nodes_and_program(name)
    memory = plan(program.steps)
    alive: dict[int, int] = {}
    temps = {view.buffer for step in program.steps for view in step.reads + step.writes if view.buffer.kind == "temp"}
    for buffer in temps:
        used = [
            p for s, p in zip(program.steps, memory.phases, strict=True) if any(v.buffer == buffer for v in s.reads + s.writes)
        ]
        for phase in range(min(used), max(used) + 1):
            alive[phase] = alive.get(phase, 0) + -(-buffer.num_bytes // 64) * 64
    assert max(alive.values(), default=0) <= memory.arena_bytes <= 2 * max(alive.values(), default=0)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in skeletons.NAMES])
def test_the_checker_accepts_the_plan(name: str) -> None:
    machine.assemble(nodes_and_program(name)[1])
