"""A process that runs Triton kernels in Triton's interpreter: pickled (text, grid, arrays, maps) in, pickled arrays out.

The interpreter wants torch tensors; ``Fake`` gives it as much of one as it asks for, so that torch is not needed.
"""

import importlib.util
import os
import pickle
import sys
import tempfile
from pathlib import Path

import numpy as np

os.environ["TRITON_INTERPRET"] = "1"


class Storage:
    def __init__(self, array):
        self.array = array

    def cpu(self):
        return Storage(self.array)

    def copy_(self, other):
        return self

    def data_ptr(self):
        return self.array.ctypes.data


class Kind(str):
    itemsize = 0


class Fake:
    """A flat numpy array with the face of a torch tensor."""

    def __init__(self, array):
        self.array, self.device = array, "cpu"
        name = "bool" if array.dtype == bool else str(array.dtype)
        self.dtype = Kind(f"torch.{name}")
        self.dtype.itemsize = array.itemsize

    def data_ptr(self):
        return self.array.ctypes.data

    def new_empty(self, *shape, **options):
        return Fake(self.array)

    def untyped_storage(self):
        return Storage(self.array)

    def set_(self, storage, *rest):
        self.array = storage.array
        return self

    def storage_offset(self):
        return 0

    def size(self):
        return self.array.shape

    def stride(self):
        return (1,)

    def numel(self):
        return self.array.size

    def element_size(self):
        return self.array.itemsize

    shape = property(lambda self: self.array.shape)
    is_cpu = True


def run(text, grid, arrays, maps):
    from triton.tools.tensor_descriptor import TensorDescriptor

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("kernel", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        args = []
        for i, array in enumerate(arrays):
            fake = Fake(array)
            if i in maps:
                shape, strides, box = maps[i]
                args.append(TensorDescriptor(fake, list(shape), list(strides), list(box)))
            else:
                args.append(fake)
        module.KERNEL[grid](*args)
    return arrays


def main():
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            result = run(*job)
        except BaseException:
            import traceback

            result = traceback.format_exc()
        pickle.dump(result, out)
        out.flush()


if __name__ == "__main__":
    main()
