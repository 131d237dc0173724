"""The one place where a package that may be missing is asked for: it is there, or a sentence says how to install it."""

import importlib
from types import ModuleType

from redline.base.errors import RedlineError

EXTRA_OF = {"onnx": "build", "ziglang": "build", "onnxruntime": "bench", "openvino": "bench"} | dict.fromkeys(
    ("hpack", "google", "google.protobuf", "uvloop", "httptools", "orjson", "prometheus_client"), "serve"
)


class MissingPackage(RedlineError):
    """A package of an extra is not installed."""

    def __init__(self, wanted_by: str, package: str) -> None:
        super().__init__(
            wanted_by, f"the package {package} is not installed", "", f"pip install 'redline[{EXTRA_OF[package]}]'"
        )


def load(module: str, wanted_by: str) -> ModuleType:
    """The module; raises MissingPackage when it, or something that it imports, belongs to an extra not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_OF:
            raise
        raise MissingPackage(wanted_by, error.name) from error
