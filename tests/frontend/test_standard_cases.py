"""All of the ONNX standard's node tests through the front end and the interpreter: right, or refused for a known reason."""

import re
import warnings
from typing import Any

import numpy as np
import pytest
from onnx.backend.test.case.node import collect_testcases

from redline import ops
from redline.base.errors import RedlineError
from redline.frontend import load
from tests.ops.node_cases import as_array

REASONS = (
    r"element type \w+ is not supported", r"Cast asks for ONNX data type \d+", r"operators of the domain 'ai\.onnx\.",
    r"\w+ is refused: ", r"an input of kind (sequence|optional)_type", r"Dropout in training mode is random",
    r"Scan of opset 8", r"it uses opset 1;", r"that does not saturate", r"attribute '\w+' of kind \w+ is not supported",
)  # fmt: skip
NOISY = re.compile("dft|stft")  # the expected values hold a float32 FFT's noise where they should be 0
HALF = {"float16": 2e-3, "bfloat16": 1e-2}  # the expected values were rounded after every step, ours once: a few units
NUM_CASES_AT_LEAST = 1600


def _feeds(case: Any, arrays: list[Any]) -> dict[str, np.ndarray]:
    return dict(zip((item.name for item in case.model.graph.input), map(as_array, arrays), strict=True))


def _graph(case: Any, feeds: dict[str, np.ndarray]) -> tuple[Any, dict[str, np.ndarray]]:
    """The graph with as few inputs frozen as it takes, and what is left to feed."""
    frozen: dict[str, np.ndarray] = {}
    for names in ((), list(feeds)[1:], list(feeds)):
        frozen = {name: feeds[name] for name in names}
        try:
            graph = load(case.model, freeze=frozen)
        except RedlineError:
            if len(names) == len(feeds):
                raise
            continue
        break
    return graph, {name: array for name, array in feeds.items() if name not in frozen}


def _check(case: Any) -> None:
    for inputs, outputs in case.data_sets:
        graph, feeds = _graph(case, _feeds(case, inputs))
        results = ops.run(graph, feeds)
        for item, wanted in zip(case.model.graph.output, map(as_array, outputs), strict=True):
            seen = results[item.name]
            assert seen.dtype == wanted.dtype and seen.shape == wanted.shape, item.name
            kind = wanted.dtype if wanted.dtype.kind in "iub" else np.float64
            half = HALF.get(wanted.dtype.name, 0.0)
            atol = max(case.atol, half, 1e-6 if NOISY.search(case.name) else 0)
            rtol = max(case.rtol, half)
            np.testing.assert_allclose(seen.astype(kind), wanted.astype(kind), rtol=rtol, atol=atol, err_msg=item.name)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What became of every case: "" when right, else what was said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {}
        for case in collect_testcases(None):
            try:
                _check(case)
                found[case.name] = ""
            except (RedlineError, AssertionError) as error:
                found[case.name] = f"{type(error).__name__}: {error}"
    return found


def test_what_is_not_refused_is_right(outcomes: dict[str, str]) -> None:
    known = re.compile("|".join(REASONS))
    assert {name: text for name, text in outcomes.items() if text and not known.search(text)} == {}


def test_no_operator_is_lost(outcomes: dict[str, str]) -> None:
    assert sum(not text for text in outcomes.values()) >= NUM_CASES_AT_LEAST
