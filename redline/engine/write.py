"""Writes an engine file: the same header and blobs give the same bytes, and the file appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from redline.base.errors import EngineError
from redline.base.files import appearing
from redline.engine.header import FORMAT, Blob, Header, encode
from redline.engine.layout import MAGIC, PREAMBLE, BlockHashes, blobs_start, header_hash, round_up

COPY_BYTES = 4 << 20


def write_engine(path: str | os.PathLike[str], header: Header, blobs: Mapping[str, Iterable[bytes | memoryview]]) -> Header:
    """Writes ``header`` (whose ``blobs`` are replaced) and the blobs, given in pieces; gives the header as written.

    The pieces are taken one at a time, so that the weights need not be in memory as one. Raises EngineError when the file
    cannot be written.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryFile(dir=path.parent) as body, appearing(path) as file:
            table = tuple(_append(body, name, pieces) for name, pieces in blobs.items())
            header = replace(header, blobs=table)
            text = encode(header)
            preamble = PREAMBLE.pack(MAGIC, FORMAT, 0, len(text), blobs_start(len(text)) + body.tell())
            file.write(preamble + header_hash(preamble, text) + text)
            _pad(file)
            body.seek(0)
            shutil.copyfileobj(body, file, COPY_BYTES)
    except OSError as error:
        raise EngineError(str(path), f"it cannot be written: {error.strerror or error}") from error
    return header


def _append(body: BinaryIO, name: str, pieces: Iterable[bytes | memoryview]) -> Blob:
    """Adds a blob to the end of ``body``, hashing it on the way."""
    start, hashes = body.tell(), BlockHashes()
    for piece in pieces:
        view = memoryview(piece).cast("B")
        hashes.update(view)
        body.write(view)
    num_bytes = body.tell() - start
    _pad(body)
    hashes.finish()
    return Blob(name, start, num_bytes, tuple(hashes.sha256), tuple(hashes.checksums))


def _pad(file: BinaryIO) -> None:
    """Zeros up to the alignment."""
    file.write(bytes(round_up(file.tell()) - file.tell()))
