"""CUDA C to cubins by NVRTC, NVIDIA's compiler as a library: the wheel nvidia-cuda-nvrtc or an installed toolkit brings it."""

import ctypes
import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from redline.base.errors import CompilerError

NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
SWIZZLE = 3  # the tensor map's 128 bytes, as all text here expects it


def is_installed() -> bool:
    try:
        _library()
    except CompilerError:
        return False
    return True


def version() -> str:
    """Raises CompilerError where NVRTC is not installed."""
    library, major, minor = _library(), ctypes.c_int(), ctypes.c_int()
    _check(library, library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"nvrtc {major.value}.{minor.value}"


def cubin(text: str, arch: int) -> bytes:
    """The machine code of ``text`` for architecture ``arch`` with the instructions that only it has."""
    library, program = _library(), ctypes.c_void_p()
    _check(library, library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None))
    try:
        options = [f"--gpu-architecture=sm_{arch}a".encode(), b"--std=c++17", b"--diag-suppress=177"]
        status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if status:
            raise ValueError(_text(library, program, "ProgramLog"))
        return _bytes(library, program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def facts(signature: Sequence[str], shared_bytes: int) -> dict[str, Any]:
    """What a launch needs to know, in the form in which Triton says it."""
    boxes = [re.fullmatch(r"tensordesc<\w+\[([\d, ]+)\]>", kind) for kind in signature]
    maps = [{"block_size": [int(e) for e in box[1].split(",")], "swizzle": SWIZZLE} for box in boxes if box]
    return {"shared": shared_bytes, "maps": maps}


@cache
def _library() -> Any:
    for name in [*_of_wheels(), *NAMES]:
        try:
            for part in Path(name).parent.glob("libnvrtc-builtins.so.*") if "/" in name else ():
                ctypes.CDLL(str(part), ctypes.RTLD_GLOBAL)  # which the library asks for by its bare name
            return ctypes.CDLL(name)
        except OSError:
            continue
    remedy = "pip install 'redline[cuda-build]'"
    raise CompilerError("nvrtc", "NVRTC is not installed", "kernels in CUDA C need it", remedy)


def _of_wheels() -> list[str]:
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    found = [path for folder in folders for name in NAMES[:2] for path in sorted(folder.glob(f"*/lib/{name}"))]
    return [str(path) for path in found]


def _bytes(library: Any, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _text(library: Any, program: ctypes.c_void_p, what: str) -> str:
    return _bytes(library, program, what).rstrip(b"\0").decode(errors="replace").strip()


def _check(library: Any, status: int) -> None:
    if status:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise CompilerError("nvrtc", library.nvrtcGetErrorString(status).decode())
