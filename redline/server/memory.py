"""System shared memory: regions of POSIX shared memory that clients register by name and requests read and write.

The files are read and written with ``pread`` and ``pwrite``, never mapped: a client that truncates its file meanwhile gets an
error, where a mapping would end the server, and one that writes while its request runs changes nothing.
"""

import os
import re
import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from redline.base.errors import closest
from redline.server.errors import Kind, ServeError, invalid, not_found
from redline.server.types import Region

FOLDER = Path("/dev/shm")
KEY = re.compile(r"/?(?!\.{1,2}$)[^/\0]{1,254}")
MAX_NAME = 512
MAX_REGIONS = 4096


@dataclass(frozen=True, slots=True)
class Registered:
    """A region: ``num_bytes`` from ``offset`` on in the shared memory object ``key``."""

    name: str
    key: str
    offset: int
    num_bytes: int
    descriptor: int
    inode: tuple[int, int]


class Regions:
    """The registered regions of a server."""

    def __init__(self) -> None:
        self._regions: dict[str, Registered] = {}
        self._lock = threading.Lock()

    def register(self, name: str, key: str, offset: int, num_bytes: int) -> None:
        """Adds a region; raises ServeError for a name in use, a bad key, one that is too small or overlaps another."""
        where = f"shared memory region {name[:80]!r}"
        if not name or len(name) > MAX_NAME:
            raise invalid("shared memory", "the region has no name or a very long one", f"allowed: 1..{MAX_NAME} characters")
        if not KEY.fullmatch(key):
            raise invalid(
                where, f"its key is {key[:80]!r}", "allowed: the name of a POSIX shared memory object, without slashes inside"
            )
        if offset < 0 or num_bytes <= 0:
            raise invalid(where, f"offset {offset}, byte_size {num_bytes}", "allowed: offset 0 or more, byte_size 1 or more")
        with self._lock:
            if name in self._regions:
                raise ServeError(Kind.CONFLICT, where, "it is registered already", "", "unregister it first")
            if len(self._regions) >= MAX_REGIONS:
                raise ServeError(Kind.TOO_MANY, where, f"{MAX_REGIONS} regions are registered", "", "unregister some")
            descriptor = _open(where, key)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode) or offset + num_bytes > found.st_size:
                    seen = f"{num_bytes} bytes from {offset} on were asked for"
                    raise invalid(where, seen, f"{key!r} has {found.st_size} bytes")
                region = Registered(name, key, offset, num_bytes, descriptor, (found.st_dev, found.st_ino))
                for other in self._regions.values():
                    if other.inode == region.inode and _overlap(other.offset, other.num_bytes, offset, num_bytes):
                        raise invalid(where, f"it overlaps region {other.name!r}", "", "register each byte once")
            except BaseException:
                os.close(descriptor)
                raise
            self._regions[name] = region

    def unregister(self, name: str = "") -> None:
        """Removes one region, or with "" all of them. One that is not there is no error."""
        with self._lock:
            names = [name] if name else list(self._regions)
            for each in names:
                region = self._regions.pop(each, None)
                if region is not None:
                    os.close(region.descriptor)

    def status(self, name: str = "") -> list[Registered]:
        """One region, or with "" all of them."""
        if not name:
            return list(self._regions.values())
        if name not in self._regions:
            raise not_found(f"shared memory region {name[:80]!r}", "it is not registered", closest(name, self._regions))
        return [self._regions[name]]

    def check(self, piece: Region) -> Registered:
        """The region that holds ``piece``; raises ServeError when there is none or the piece reaches beyond it."""
        region = self._regions.get(piece.name)
        where = f"shared memory region {piece.name[:80]!r}"
        if region is None:
            raise invalid(where, "it is not registered", closest(piece.name, self._regions), "register it first")
        if piece.offset < 0 or piece.num_bytes < 0 or piece.offset + piece.num_bytes > region.num_bytes:
            seen = f"{piece.num_bytes} bytes from {piece.offset} on were asked for"
            raise invalid(where, seen, f"it has {region.num_bytes}")
        return region

    def read(self, piece: Region) -> memoryview:
        """The bytes of a piece, copied once."""
        region = self.check(piece)
        target = memoryview(bytearray(piece.num_bytes))
        done = os.preadv(region.descriptor, [target], region.offset + piece.offset) if piece.num_bytes else 0
        if done != piece.num_bytes:
            raise invalid(f"shared memory region {piece.name!r}", f"only {done} of {piece.num_bytes} bytes are there any more")
        return target

    def write(self, piece: Region, data: bytes | memoryview) -> None:
        """Writes ``data`` at the start of a piece; raises ServeError where it does not fit."""
        region = self.check(piece)
        where = f"shared memory region {piece.name!r}"
        if len(data) > piece.num_bytes:
            raise invalid(where, f"the output has {len(data)} bytes", f"{piece.num_bytes} were set aside for it")
        end = region.offset + piece.offset + len(data)
        if os.fstat(region.descriptor).st_size < end:
            raise invalid(where, "the shared memory object has shrunk since it was registered")
        os.pwrite(region.descriptor, data, region.offset + piece.offset)

    def check_apart(self, outputs: Iterable[Region], inputs: Iterable[Region]) -> None:
        """Raises ServeError when an output piece shares bytes with another piece of the request."""
        seen: list[Region] = list(inputs)
        for piece in outputs:
            if any(p.name == piece.name and _overlap(p.offset, p.num_bytes, piece.offset, piece.num_bytes) for p in seen):
                raise invalid(f"shared memory region {piece.name!r}", "two tensors of the request overlap in it")
            seen.append(piece)


def _overlap(a: int, a_bytes: int, b: int, b_bytes: int) -> bool:
    return a < b + b_bytes and b < a + a_bytes


def _open(where: str, key: str) -> int:
    try:
        return os.open(FOLDER / key.removeprefix("/"), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise invalid(
            where, f"{key!r} cannot be opened: {error.strerror}", "", "make the shared memory object first"
        ) from error
