"""Random use of shared memory, against a model of what must be accepted; the objects shrink, vanish and come back meanwhile."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from serving import add_identity, running
from tritonclient.utils import InferenceServerException

SIZES = {"a": 256, "b": 64, "c": 8}
NAMES = ["one", "two", "three", "..", "x/y", "n" * 600, ""]
TRICKS = ["../etc/passwd", "/../../etc/passwd", "a/b", "", "/", ".", "..", "absent", "x\0y", "k" * 300, "shm"]
BAD_STATUS = ("500", "501", "503", "INTERNAL", "UNKNOWN", "UNAVAILABLE")


class Objects:
    """Shared memory objects of this test's own, which shrink, vanish and come back."""

    def __init__(self):
        self.prefix = f"redline-fuzz-{os.getpid()}-"
        for name in SIZES:
            self.make(name)

    def path(self, name):
        return Path("/dev/shm") / (self.prefix + name)

    def make(self, name):
        self.path(name).unlink(missing_ok=True)
        self.path(name).write_bytes(bytes(SIZES[name]))

    def close(self):
        for name in SIZES:
            self.path(name).unlink(missing_ok=True)


class Expected:
    """Which regions are registered: name -> (key, inode, offset, size)."""

    def __init__(self, objects):
        self._objects, self.regions = objects, {}

    def accepts(self, name, key, offset, size):
        if not name or len(name) > 512 or name in self.regions or offset < 0 or size <= 0:
            return False
        known = key.removeprefix("/").removeprefix(self._objects.prefix)
        if known not in SIZES or not self._objects.path(known).exists():
            return False
        found = self._objects.path(known).stat()
        apart = all(inode != found.st_ino or offset + size <= o or o + s <= offset for _, inode, o, s in self.regions.values())
        return offset + size <= found.st_size and apart

    def registered(self, name, key, offset, size):
        known = key.removeprefix("/").removeprefix(self._objects.prefix)
        self.regions[name] = known, self._objects.path(known).stat().st_ino, offset, size


@pytest.fixture
def objects():
    made = Objects()
    yield made
    made.close()


def attempt(call, *args, **options):
    """The answer, None where it was refused; anything but the caller's fault fails."""
    try:
        return call(*args, **options)
    except InferenceServerException as error:
        assert not any(bad in str(error.status()) for bad in BAD_STATUS), (error.status(), error.message())
        assert error.message().startswith("["), error.message()
        return None


def register(rng, client, objects, expected):
    name, offset = rng.choice(NAMES[:3] * 3 + NAMES), rng.choice([0, 0, 0, 8, 64, 1 << 40])
    key = objects.prefix + rng.choice(list(SIZES)) if rng.random() < 0.8 else rng.choice(TRICKS)
    key, size = rng.choice(["", "/"]) + key if key not in TRICKS else key, rng.choice([0, 8, 8, 64, 128, 256, 257, 1 << 40])
    if not name or "/" in name or name == "..":
        return  # the clients put the name into a path
    accepted = expected.accepts(name, key, offset, size)
    before = set(expected.regions)
    attempt(client.register_system_shared_memory, name, key, size, offset)
    listed = names(client)
    assert (name in listed) == (accepted or name in before), (name, key, offset, size, listed)
    if accepted:
        expected.registered(name, key, offset, size)


def names(client):
    found = client.get_system_shared_memory_status()
    return {r["name"] for r in found} if isinstance(found, list) else set(found.regions)


def infer(rng, client, module, objects, expected):
    given = module.InferInput("INPUT0", [1, 2], "FP32")
    wanted = module.InferRequestedOutput("OUTPUT0")
    region, offset = rng.choice(NAMES[:3]), rng.choice([0, 0, 8, 60, 1 << 50])
    size = rng.choice([8, 8, 8, 4, 16, 0])
    if rng.random() < 0.7:
        given.set_shared_memory(region, size, offset)
    else:
        given.set_data_from_numpy(np.ones((1, 2), np.float32))
    if rng.random() < 0.5:
        wanted.set_shared_memory(rng.choice(NAMES[:3]), rng.choice([8, 8, 4, 64]), rng.choice([0, 8, 1 << 40]))
    attempt(client.infer, "id_FP32", [given], outputs=[wanted])


@pytest.mark.parametrize("module", [http_client, grpc_client], ids=["http", "grpc"])
def test_random_use(tmp_path, objects, module):
    add_identity(tmp_path, "id_FP32", "FP32")
    rng, expected = random.Random(5), Expected(objects)
    with running(tmp_path) as server:
        with module.InferenceServerClient(server.http if module is http_client else server.grpc) as client:
            for _ in range(1500):
                kind = rng.random()
                if kind < 0.35:
                    register(rng, client, objects, expected)
                elif kind < 0.75:
                    infer(rng, client, module, objects, expected)
                elif kind < 0.85:
                    name = rng.choice(NAMES[:3])
                    attempt(client.unregister_system_shared_memory, name)
                    expected.regions.pop(name, None)
                    assert names(client) == set(expected.regions)
                elif kind < 0.92:
                    objects.make(rng.choice(list(SIZES)))  # a new object under the old name: regions keep the old one
                elif kind < 0.96:
                    os.truncate(objects.path("a"), rng.choice([0, 8, 256])) if objects.path("a").exists() else None
                else:
                    objects.path(rng.choice(list(SIZES))).unlink(missing_ok=True)
            assert client.is_server_ready()
        assert server.call(lambda: server.server.plane.in_flight) == 0
