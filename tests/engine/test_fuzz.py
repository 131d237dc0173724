"""Mutated engine files: each is refused with an EngineError or is the engine that was written; nothing ever crashes.

Four kinds. Bytes changed anywhere: the hashes must notice. Headers changed with all hashes made anew: the parser and the plan
checker must hold, as they would against a file made with intent; the same for the steps of a further plan. Headers of random
JSON likewise. Code is never run here.
"""

import hashlib
import json
import random
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from redline.base.errors import EngineError
from redline.engine import FORMAT, check_plan, check_variants, open_engine
from redline.engine.layout import BlockHashes, blobs_start
from tests.builder.processes import finish, limit_memory, start
from tests.small_engines import two_plans

QUICK, LONG = 2_000, 20_000
INTERESTING = [0, 1, -1, 2, 63, 64, 65, 1 << 31, -(1 << 31), 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 64, 10**4000, 4096]
OTHERS = [None, True, False, "", "arena", "weights", "float64", "\ud800", 0.5, -0.0, 1e308, [], {}, [[]], [1, 2], {"a": 1}]


@pytest.fixture
def original(tmp_path) -> bytes:
    return two_plans(tmp_path / "original.engine").read_bytes()


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """The file with bits flipped, bytes replaced, removed, inserted or moved."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        limit = rng.choice([64, 512, len(result)])
        at = rng.randrange(max(1, min(limit, len(result))))
        match rng.randrange(6):
            case 0:
                result[at : at + 1] = bytes([(result[at] if result else 0) ^ 1 << rng.randrange(8)])
            case 1:
                result[at : at + 1] = rng.randbytes(1)
            case 2:
                del result[at : at + rng.choice([1, 8, 64, 5000])]
            case 3:
                result[at:at] = rng.randbytes(rng.choice([1, 8, 64]))
            case 4:
                result[at : at + 8] = struct.pack("<Q", rng.choice(INTERESTING) % (1 << 64))
            case 5:
                start = rng.randrange(max(1, len(result)))
                result[at : at + 64] = result[start : start + 64]
    return bytes(result)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON tree."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, item in below for p in places(item, (*path, key)))]


def mutate_json(tree: Any, rng: random.Random) -> None:
    """Changes one value somewhere, mostly to one of the same type."""
    path = rng.choice(places(tree)[1:])
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    key, value = path[-1], holder[path[-1]]
    choice = rng.randrange(10)
    if choice == 0:
        del holder[key]
    elif choice == 1:
        holder[key] = rng.choice(OTHERS)
    elif isinstance(value, list) and value:
        if choice < 5:
            value.append(rng.choice(value))
        elif choice < 8:
            rng.shuffle(value)
        else:
            value.pop()
    elif type(value) is int:
        holder[key] = rng.choice([value + 1, value - 1, value + 64, value - 64, value * 2, -value, rng.choice(INTERESTING)])
    elif type(value) is bool:
        holder[key] = not value
    elif isinstance(value, str):
        holder[key] = rng.choice(["", value + "x", "arena", "weights", "input", "output", "int8", "float64"])


def random_json(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(8 if depth < 4 else 5)
    if kind < 2:
        return rng.choice(INTERESTING)
    if kind < 5:
        return rng.choice(OTHERS)
    names = [*json.loads(header_text(None))] if depth == 0 else ["name", "shape", "offset", "space"]
    if kind == 5:
        return [random_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(names): random_json(rng, depth + 1) for _ in range(rng.randrange(12))}


def header_text(data: bytes | None) -> bytes:
    if data is None:
        return b'{"stamp":0,"inputs":0,"kernels":0,"blobs":0}'
    return data[64 : 64 + struct.unpack_from("<Q", data, 16)[0]]


def with_header(data: bytes, text: bytes) -> bytes:
    """The file with another header text, all lengths and hashes right."""
    body = data[blobs_start(len(header_text(data))) :]
    padded = text + bytes(-len(text) % 64)
    preamble = struct.pack("<8sIIQQ", data[:8], FORMAT, 0, len(text), 64 + len(padded) + len(body))
    return preamble + hashlib.sha256(preamble + text).digest() + padded + body


def outcome(path: Path, data: bytes) -> str:
    """ "refused" or "passed": reads and checks the file as the loader does, up to the point where code would be loaded."""
    path.write_bytes(data)
    try:
        file = open_engine(path)
        check_plan(file.header, file.blob("weights").nbytes, file.path)
        check_variants(file.header, file.path)
        for number in range(1, 1 + len(file.header.variants)):
            check_plan(file.plan(number), file.blob("weights").nbytes, file.path)
        file.close()
    except EngineError as error:
        assert str(error).startswith(f"[{path}] ")
        return "refused"
    return "passed"


def fuzz_bytes(original: bytes, path: Path, count: int) -> None:
    rng = random.Random(0)
    for _ in range(count):
        data = mutate_bytes(original, rng)
        assert (outcome(path, data) == "passed") == (data == original)


def fuzz_headers(original: bytes, path: Path, count: int) -> None:
    """Headers with single values changed, and all hashes right."""
    rng = random.Random(1)
    outcomes = []
    for _ in range(count):
        tree = json.loads(header_text(original))
        for _ in range(rng.choice([1, 1, 2, 5])):
            mutate_json(tree, rng)
        outcomes.append(outcome(path, with_header(original, json.dumps(tree).encode())))
    assert outcomes.count("refused") > count // 3
    assert outcomes.count("passed") > count // 50  # names, times and reports may be anything


def parts(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The header's JSON, and the blobs."""
    tree = json.loads(header_text(data))
    start = blobs_start(len(header_text(data)))
    return tree, {b["name"]: data[start + b["offset"] :][: b["num_bytes"]] for b in tree["blobs"]}


def joined(tree: dict[str, Any], blobs: dict[str, bytes]) -> bytes:
    """A file of a header and blobs, with all places and hashes right."""
    tree["blobs"], body = [], b""
    for name, content in blobs.items():
        hashes = BlockHashes()
        hashes.update(memoryview(content))
        hashes.finish()
        tree["blobs"].append({"name": name, "offset": len(body), "num_bytes": len(content), "sha256": hashes.sha256,
                              "checksums": hashes.checksums})  # fmt: skip
        body += content + bytes(-len(content) % 64)
    text = json.dumps(tree).encode()
    preamble = struct.pack("<8sIIQQ", b"\x89RDLN\r\n\x1a", FORMAT, 0, len(text), blobs_start(len(text)) + len(body))
    return preamble + hashlib.sha256(preamble + text).digest() + text + bytes(-len(text) % 64) + body


def fuzz_plans(original: bytes, path: Path, count: int) -> None:
    """The steps of the second plan with single values changed, or of random JSON, and all hashes right."""
    rng = random.Random(3)
    outcomes = []
    assert outcome(path, joined(*parts(original))) == "passed"
    for number in range(count):
        tree, blobs = parts(original)
        plan = json.loads(blobs["plan.1"]) if number % 8 else random_json(rng)
        for _ in range(rng.choice([1, 1, 2, 5]) if number % 8 else 0):
            mutate_json(plan, rng)
        outcomes.append(outcome(path, joined(tree, {**blobs, "plan.1": json.dumps(plan).encode()})))
    assert outcomes.count("refused") > count // 3
    assert outcomes.count("passed") > count // 50


def fuzz_random_headers(original: bytes, path: Path, count: int) -> None:
    rng = random.Random(2)
    for _ in range(count):
        assert outcome(path, with_header(original, json.dumps(random_json(rng)).encode())) == "refused"


@pytest.mark.parametrize(("fuzz", "share"), [(fuzz_bytes, 2), (fuzz_headers, 2), (fuzz_plans, 2), (fuzz_random_headers, 4)])
def test_mutated_files_are_refused_or_right(original, tmp_path, fuzz, share):
    fuzz(original, tmp_path / "m.engine", QUICK // share)


@pytest.mark.slow
def test_many_mutated_files_in_little_memory(original, tmp_path):
    """All kinds in a process that may take 2 GiB of addresses, numpy's included, and ten minutes."""
    (tmp_path / "original.engine").write_bytes(original)
    status, output = finish(start(["-m", "tests.engine.test_fuzz", "original.engine"], tmp_path), seconds=600)
    assert (status, output) == (0, f"{LONG} {LONG} {LONG} {LONG}\n")


def test_every_bit_of_the_preamble_and_a_bit_of_every_byte_behind_it_are_noticed(original, tmp_path):
    path = tmp_path / "m.engine"
    bits = [(at, bit) for at in range(64) for bit in range(8)]
    bits += [(at, at % 8) for at in range(64, len(original), 29)]
    for at, bit in bits:
        data = bytearray(original)
        data[at] ^= 1 << bit
        assert outcome(path, bytes(data)) == "refused"


if __name__ == "__main__":
    limit_memory(2 << 30)
    content = Path(sys.argv[1]).read_bytes()
    for run in (fuzz_bytes, fuzz_headers, fuzz_plans, fuzz_random_headers):
        run(content, Path("m.engine"), LONG)
    print(LONG, LONG, LONG, LONG)
