"""Every anchor of lowering through a built engine, against the interpreter and ONNX Runtime."""

from functools import cache

import pytest

from tests.builder import bundle, cases_moves, cases_products, cases_rows, cases_windows
from tests.builder.bundle import Arrays, Case

GROUPS: dict[str, list[Case]] = {
    "convolutions": cases_windows.CONVOLUTIONS,
    "transposed": cases_windows.TRANSPOSED,
    "pools": cases_windows.POOLS,
    "products": cases_products.PRODUCTS,
    "attention": cases_products.ATTENTION,
    "rows": cases_rows.ROWS,
    "reductions": cases_rows.REDUCTIONS,
    "scatters": cases_moves.SCATTERS,
    "resizes": cases_moves.RESIZES,
    "moves": cases_moves.MOVES,
}
ALL = [pytest.param(group, case, id=f"{group}-{case.name}") for group, cases in GROUPS.items() for case in cases]


@cache
def answers(group: str) -> dict[str, Arrays]:
    return bundle.answers(GROUPS[group])


@pytest.mark.parametrize(("group", "case"), ALL)
def test_an_engine_answers_like_the_interpreter_and_onnx_runtime(group: str, case: Case) -> None:
    bundle.check(case, answers(group)[case.name])
