"""Memory for arenas: anonymous, page-aligned, zeroed, in huge pages where the system has them."""

import ctypes
import mmap

from redline.base.errors import EngineError

HUGE_BYTES = 4 << 20  # a smaller arena would be rounded up by as much as it holds


class Arena:
    """``num_bytes`` of zeroed memory at ``address``."""

    def __init__(self, num_bytes: int, where: str) -> None:
        try:
            self._mapping = mmap.mmap(-1, max(1, num_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            seen = f"an arena of {num_bytes} bytes cannot be had: {error}"
            raise EngineError(where, seen, "", "free memory, or build for smaller shapes") from error
        if num_bytes >= HUGE_BYTES:
            self._mapping.madvise(mmap.MADV_HUGEPAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))

    def close(self) -> None:
        self._mapping.close()
