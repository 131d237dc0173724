"""Writes an engine file: the same header and blobs give the same bytes, and the file appears whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from redline.base.errors import EngineError
from redline.engine.header import FORMAT, Blob, Header, encode
from redline.engine.layout import (
    MAGIC,
    PREAMBLE,
    PREAMBLE_BYTES,
    blobs_start,
    block_hash,
    blocks,
    header_hash,
    place,
    round_up,
)


def write_engine(path: str | os.PathLike[str], header: Header, blobs: Mapping[str, bytes | memoryview]) -> Header:
    """Writes ``header`` (whose ``blobs`` are replaced) and ``blobs`` to ``path``; gives the header as written.

    Raises EngineError when the file cannot be written.
    """
    views = {name: memoryview(data).cast("B") for name, data in blobs.items()}
    offsets, blob_bytes = place([view.nbytes for view in views.values()])
    table = (Blob(name, at, view.nbytes, _hashes(view)) for (name, view), at in zip(views.items(), offsets, strict=True))
    header = replace(header, blobs=tuple(table))
    text = encode(header)
    preamble = PREAMBLE.pack(MAGIC, FORMAT, 0, len(text), blobs_start(len(text)) + blob_bytes)
    try:
        with _appearing(Path(path)) as file:
            file.write(preamble + header_hash(preamble, text))
            _write_padded(file, memoryview(text), PREAMBLE_BYTES)
            for view in views.values():
                _write_padded(file, view, 0)
    except OSError as error:
        raise EngineError(str(path), f"it cannot be written: {error}") from error
    return header


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when it is complete, and is removed when something goes wrong."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(temporary, "xb") as file:
        try:
            yield file
            file.flush()
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _write_padded(file: BinaryIO, data: memoryview, before: int) -> None:
    """Writes ``data`` and zeros up to the alignment; ``before``: the bytes of the file that precede it, modulo that."""
    file.write(data)
    end = before + data.nbytes
    file.write(bytes(round_up(end) - end))


def _hashes(data: memoryview) -> tuple[str, ...]:
    with ThreadPoolExecutor() as workers:
        return tuple(workers.map(lambda block: block_hash(data[block[0] : block[1]]), blocks(data.nbytes)))
