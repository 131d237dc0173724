"""References of operators that are defined by their decomposition: the parts are interpreted one by one."""

from typing import Any

import numpy as np

from redline.ir import Graph, Value, constant
from redline.ops.interpreter import run
from redline.ops.registry import Decompose, Op, Reference


def by_parts(decompose: Decompose) -> Reference:
    """The reference that takes the operator apart over constants and interprets what comes out."""

    def reference(op: Op, *arrays: np.ndarray | None) -> Any:
        inputs = [None if array is None else constant(array.view()) for array in arrays]
        result = decompose(Op(op.name, inputs, op.attrs, op.label, op.num_outputs))
        values = (result,) if isinstance(result, Value) else result
        assert values is not None, f"{op.name} has no parts"
        outputs = run(Graph("", (), tuple((str(i), value) for i, value in enumerate(values))), {})
        return tuple(outputs[str(i)] for i in range(len(values)))

    return reference
