"""Where a model is loaded from: its folder, its configuration, the versions to serve, or the files of a load request."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.server import config_files, folders
from redline.server.config import ModelConfig
from redline.server.errors import invalid, not_found
from redline.server.served import Prepared

DEFAULT_BACKEND = "redline"


@dataclass(frozen=True)
class Source:
    """Where a model is to be loaded from."""

    folder: Path
    message: Any
    config: ModelConfig
    versions: Mapping[int, Path]


def read_source(roots: Sequence[Path], name: str, config_json: str = "", root: Path | None = None) -> Source:
    """The configuration and the versions to serve; on a thread."""
    folder = root or folders.model_folder(roots, name)
    if config_json:
        message = config_files.parse_json(config_json, name, f"model {name!r}")
    else:
        message = config_files.read_folder(folder)
        if not any((folder / file).is_file() for file in ("config.pbtxt", "redline.toml")):
            message.dynamic_batching.SetInParent()
    config = config_files.to_config(message)
    present = folders.version_folders(folder)
    chosen = config.versions.select(list(present))
    if not chosen:
        asked = f"present: {', '.join(map(str, sorted(present))) or 'none'}"
        raise not_found(f"model {name!r}", "no version of its policy is there", asked, f"put a model in {name}/1/")
    return Source(folder, message, config, {number: present[number] for number in chosen})


def completed(message: Any, prepared: Prepared) -> Any:
    """The configuration message with what only the model file says: its inputs, outputs and largest batch."""
    program, filled = prepared.program, type(message)()
    filled.CopyFrom(message)
    front = 1 if program.max_batch_size else 0
    filled.max_batch_size = program.max_batch_size
    for field_, specs in ((filled.input, program.inputs), (filled.output, program.outputs)):
        if not field_:
            for spec in specs:
                field_.add(name=spec.name, data_type=config_files.datatype_number(spec.datatype), dims=spec.shape[front:])
    if not filled.backend:
        filled.backend = DEFAULT_BACKEND
    return filled


def unpack(name: str, config_json: str, files: Mapping[str, bytes]) -> "tempfile.TemporaryDirectory[str]":
    """The files of a load request in a folder of their own."""
    where = f"model {name!r}"
    if not config_json:
        raise invalid(where, "files are given without a config")
    upload = tempfile.TemporaryDirectory(prefix="redline-upload-")
    for path, content in files.items():
        version, slash, file = path.partition("/")
        if not slash or "/" in file or file in ("", ".", "..") or "\0" in file:
            upload.cleanup()
            raise invalid(where, f"the file {path[:80]!r} has no place", "allowed: file:VERSION/NAME")
        folder = Path(upload.name) / name / str(folders.check_version(version))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    return upload
