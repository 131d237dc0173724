"""SHA-256. What is short is hashed by the interpreter's own module, as the standard library's ``random`` does it: hashlib loads
OpenSSL, which costs every process half a megabyte, and pays for itself on long data only.
"""

import importlib
import importlib.util

LONG_BYTES = 1 << 20
LEAN = ("_sha2", "_sha256", "hashlib")  # Python 3.12 and newer, 3.11, any


def sha256(data: bytes | memoryview) -> bytes:
    """The 32 bytes of the digest."""
    digest: bytes = _module(memoryview(data).nbytes).sha256(data).digest()
    return digest


def _module(num_bytes: int):  # type: ignore[no-untyped-def]  # one of several modules
    names = LEAN if num_bytes < LONG_BYTES else LEAN[-1:]
    return importlib.import_module(next(name for name in names if importlib.util.find_spec(name) is not None))
