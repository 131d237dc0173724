"""SHA-256 by whichever module is at hand."""

import hashlib

import pytest

from redline.engine import digest


@pytest.mark.parametrize("num_bytes", [0, 1, 63, 64, 65, digest.LONG_BYTES - 1, digest.LONG_BYTES])
def test_it_is_the_known_one(num_bytes):
    data = bytes(i * 7 % 256 for i in range(num_bytes))
    assert digest.sha256(data) == digest.sha256(memoryview(data)) == hashlib.sha256(data).digest()


def test_without_the_interpreters_own_modules(monkeypatch):
    monkeypatch.setattr(digest, "LEAN", ("_no_such_module", "hashlib"))
    assert digest.sha256(b"abc") == hashlib.sha256(b"abc").digest()
