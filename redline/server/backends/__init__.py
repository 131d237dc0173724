"""What runs models: ``redline`` (engines) and ``identity`` (outputs are inputs, for tests of clients and networks)."""

from collections.abc import Mapping

from redline.server.backends.engines import load_engines
from redline.server.backends.identity import load_identity
from redline.server.program import Loader

BUILTIN: Mapping[str, Loader] = {"redline": load_engines, "identity": load_identity}
