"""Runs the text of a Triton kernel in Triton's interpreter, on numpy arrays, in this process and without torch.

The interpreter asks its arguments for as much of a torch tensor as ``Tensor`` has. TRITON_INTERPRET is set only while Triton
is imported and kernels are run, for the compiler's workers must not see it.
"""

import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np


class Kind(str):
    """A dtype's name with the size of an element."""

    itemsize = 0


class Tensor:
    """Flat elements at an address, with the face of a torch tensor. ``owner`` keeps them alive."""

    device, shape = "cpu", (1,)

    def __init__(self, address: int, dtype: str, itemsize: int, owner: object = None) -> None:
        self.address, self.owner = address, owner
        self.dtype = Kind(f"torch.{dtype}")
        self.dtype.itemsize = itemsize

    @staticmethod
    def of(array: np.ndarray) -> "Tensor":
        name = {"bool": "int8"}.get(str(array.dtype), str(array.dtype))
        return Tensor(array.ctypes.data, name, array.itemsize, array)

    def data_ptr(self) -> int:
        return self.address

    def element_size(self) -> int:
        return self.dtype.itemsize

    def new_empty(self, *shape: object, **options: object) -> "Tensor":
        return Tensor(self.address, str(self.dtype).removeprefix("torch."), self.dtype.itemsize, self.owner)

    def set_(self, *parts: object) -> "Tensor":
        return self

    def untyped_storage(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return self

    def copy_(self, other: object) -> "Tensor":
        return self

    def storage_offset(self) -> int:
        return 0

    def size(self) -> tuple[int, ...]:
        return self.shape

    def stride(self) -> tuple[int, ...]:
        return (1,)


@contextmanager
def interpreting() -> Iterator[None]:
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        yield
    finally:
        os.environ.pop("TRITON_INTERPRET")
        if before is not None:
            os.environ["TRITON_INTERPRET"] = before


def _accept_one_element_arrays() -> None:
    """numpy 2.4 no longer turns arrays of one element into integers, which the interpreter does for loop bounds."""
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor
    if getattr(original, "is_redlines", False):
        return

    def patched(tensor: type, scope: object) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.reshape(-1)[0]))  # type: ignore[attr-defined]

    patched.is_redlines = True  # type: ignore[attr-defined]
    interpreter._patch_lang_tensor = patched


def _round_floats_of_8_bits() -> None:
    """The interpreter cuts bits off where the GPU rounds to the nearest float8 and saturates; ml_dtypes rounds like the GPU."""
    from triton.runtime import interpreter

    original = interpreter._convert_float
    if getattr(original, "is_redlines", False):
        return

    def converted(array: np.ndarray, source: object, target: object, rounding: object) -> np.ndarray:
        kinds = {"fp8e4nv": ml_dtypes.float8_e4m3fn, "fp32": np.float32, "fp16": np.float16}
        if "fp8e4nv" not in (str(source), str(target)):
            return original(array, source, target, rounding)
        values = array.view(kinds[str(source)]).astype(np.float32)
        if str(target) == "fp8e4nv":
            values = np.clip(values, -448, 448)
        return values.astype(kinds[str(target)]).view(f"u{np.dtype(kinds[str(target)]).itemsize}")

    converted.is_redlines = True  # type: ignore[attr-defined]
    interpreter._convert_float = converted


def run(
    text: str,
    grid: Sequence[int],
    args: Sequence[Tensor | int],
    maps: Mapping[int, tuple[Sequence[int], Sequence[int], Sequence[int]]],
) -> None:
    """Runs KERNEL of ``text``; where ``maps`` names a parameter it is a tensor map (shape, strides, box) of that address."""
    with interpreting(), tempfile.TemporaryDirectory() as folder:
        from triton.tools.tensor_descriptor import TensorDescriptor

        _accept_one_element_arrays()
        _round_floats_of_8_bits()
        path = Path(folder) / "kernel.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("kernel", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        given = [TensorDescriptor(a, *map(list, maps[i])) if i in maps else a for i, a in enumerate(args)]
        module.KERNEL[tuple(grid)](*given)
