"""The code of an engine in this process: a shared object loaded from memory, and its C functions.

This runs native code. Load only engines from people whose programs you would run.
"""

import _ctypes
import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, c_double, c_int32, c_int64, c_uint64, c_void_p

from redline.base.errors import EngineError

ABI = 5  # RL_ABI of executor.h
MAX_DIMS = 8  # RL_MAX_DIMS
FIRST_FOUND = 4  # where kernels put the dimensions that they find


class Call(ctypes.Structure):
    """rl_call of executor.h."""

    _fields_ = (
        ("arena", c_void_p),
        ("state", c_void_p),
        ("weights", c_void_p),
        ("inputs", POINTER(c_void_p)),
        ("outputs", POINTER(c_void_p)),
        ("step_seconds", POINTER(c_double)),
        ("num_threads", c_int32),
        ("capacity", c_int32),
        ("first_step", c_int32),
        ("end_step", c_int32),
        ("plan", c_int32),
        ("dims", POINTER(c_int64)),
    )


class Library:
    """The functions of one loaded engine. Close it only when nothing uses its code any more."""

    def __init__(self, descriptor: int, name: str) -> None:
        """``descriptor``: an open file that holds the shared object, owned by the library from here on.

        It stays open, because the loader takes a second library of the same path (which names the descriptor) for the first.
        """
        self._descriptor, self._handle = descriptor, 0
        try:
            code = ctypes.CDLL(f"/proc/self/fd/{descriptor}")
            self._handle = code._handle
            self.run = code.rl_run
            self.abi = code.rl_abi()
            self.checksum, self.pool_new, self.pool_free = code.rl_checksum, code.rl_pool_new, code.rl_pool_free
            self.workspace_bytes, self.state_bytes = code.rl_workspace_bytes, code.rl_state_bytes
            self.num_plans = code.rl_num_plans()
            self.num_steps = tuple(code.rl_num_steps(plan) for plan in range(self.num_plans))
        except (OSError, AttributeError) as error:
            self.close()
            raise EngineError(name, f"its code cannot be loaded: {error}", "", "build the engine again") from error
        self.run.argtypes, self.run.restype = (c_void_p, c_void_p), c_int32
        self.checksum.argtypes, self.checksum.restype = (c_void_p, c_int64), c_uint64
        for sized in (self.workspace_bytes, self.state_bytes):
            sized.argtypes, sized.restype = (c_int32, c_int32), c_int64
        self.pool_new.argtypes, self.pool_new.restype = (c_int32,), c_void_p
        self.pool_free.argtypes, self.pool_free.restype = (c_void_p,), None
        if self.abi != ABI:
            self.close()
            seen = f"its code has interface {self.abi}"
            raise EngineError(name, seen, f"this version of Redline runs interface {ABI}", "build the engine again")
        refused = code.rl_permit()
        if refused:
            self.close()
            seen = f"the system does not give this process the matrix unit (AMX): {os.strerror(refused)}"
            raise EngineError(name, seen, "Linux 5.16 or newer does", "build with --target cpu:avx512+bf16+vnni")

    @staticmethod
    def from_bytes(code: bytes | memoryview, name: str = "engine") -> "Library":
        """Loads a shared object through a file that exists in memory only."""
        descriptor = os.memfd_create("redline-engine", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(code)
        return Library(descriptor, name)

    def close(self) -> None:
        """Unloads the code; a second call does nothing."""
        handle, descriptor, self._handle, self._descriptor = self._handle, self._descriptor, 0, -1
        if handle:
            _ctypes.dlclose(handle)
        if descriptor >= 0:
            os.close(descriptor)


def pointers(addresses: Sequence[int]) -> "ctypes.Array[c_void_p]":
    """A C array of addresses; one element long when there are none."""
    return (c_void_p * max(1, len(addresses)))(*addresses)
