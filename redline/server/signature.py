"""The check of a request's tensors against a model's inputs, by their names, types and shapes alone."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from redline.base import shapes
from redline.base.errors import closest
from redline.server.errors import ServeError, invalid
from redline.server.types import InferRequest, Shape, TensorSpec

Signature = tuple[tuple[str, str, Shape], ...]
MAX_KNOWN = 1024


@dataclass(frozen=True, slots=True)
class Checked:
    """``rows``: the request's batch extent (1 without). Requests of equal ``key`` may share a batch."""

    rows: int
    key: Hashable


def signature_of(request: InferRequest) -> Signature:
    return tuple((t.name, t.datatype, t.array.shape) for t in request.inputs)


class Checker:
    """Remembers the answer for the signatures that it has seen, a bounded number of them."""

    def __init__(self, where: str, inputs: Sequence[TensorSpec], max_batch_size: int) -> None:
        self._where, self._max_batch = where, max_batch_size
        self._specs = {spec.name: spec for spec in inputs}
        self._known: dict[Signature, Checked] = {}

    def check(self, signature: Signature) -> Checked:
        """Raises ServeError for an unknown, missing or repeated input, a wrong type or shape, or too many rows."""
        known = self._known.get(signature)
        if known is None:
            known = self._examine(signature)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[signature] = known
        return known

    def _examine(self, signature: Signature) -> Checked:
        names = [name for name, _, _ in signature]
        for name in names:
            if name not in self._specs:
                raise invalid(self._where, f"there is no input {name[:80]!r}", closest(name[:80], self._specs))
        if len(set(names)) < len(names):
            raise invalid(self._where, "an input is given twice")
        missing = [name for name, spec in self._specs.items() if not spec.optional and name not in names]
        if missing or not names:
            expected = f"expected {', '.join(map(repr, self._specs))}"
            raise invalid(self._where, f"missing inputs: {', '.join(map(repr, missing)) or 'all'}", expected)
        for name, datatype, shape in signature:
            self._check_input(self._specs[name], datatype, shape)
        if not self._max_batch:
            return Checked(1, signature)
        extents = {shape[0] for _, _, shape in signature}
        if len(extents) > 1:
            raise invalid(self._where, f"the inputs have batch extents {sorted(extents)}", "they must be the same")
        rows = extents.pop()
        if not 1 <= rows <= self._max_batch:
            raise invalid(self._where, f"the request has {rows} rows", f"allowed: 1..{self._max_batch}, max_batch_size")
        return Checked(rows, tuple(sorted((name, shape[1:]) for name, _, shape in signature)))

    def _check_input(self, spec: TensorSpec, datatype: str, shape: Shape) -> None:
        where = f"{self._where}, input {spec.name!r}"
        if datatype != spec.datatype:
            raise invalid(where, f"its data type is {datatype}", f"expected {spec.datatype}")
        if len(shape) != len(spec.shape) or any(e not in (-1, d) for e, d in zip(spec.shape, shape, strict=True)):
            note = ", the first extent being the batch" if self._max_batch else ""
            raise wrong_shape(where, shape, spec, note)


def wrong_shape(where: str, shape: Shape, spec: TensorSpec, note: str) -> ServeError:
    expected = f"expected [{','.join(map(str, spec.shape))}]{note}"
    return invalid(where, f"its shape is {shapes.text(shape)}", expected)
