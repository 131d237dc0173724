"""Drives load at a server and measures it: closed loop (so many callers, each waiting for its answer) and open loop (requests
at random times at a given rate, as a crowd sends them, whether or not earlier ones are answered).

In an open loop the latency counts from the moment a request was due, so a server that falls behind cannot hide it.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson

from redline.base.errors import RedlineError, closest
from redline.server import tensors, types
from redline.server.load_connection import Connection, connect, fetch

MAX_CONNECTIONS = 512
MAX_BACKLOG = 32
MIN_REQUESTS = 300  # of a run whose p99 decides: three of them may be slower
TRIES = 3  # at a rate that fails: one pause of the machine must not decide
PATIENCE = 4  # times the limit: a server whose backlog takes longer is not going to hold the rate
RESOLUTION = 0.03
MAX_RATE = 1e6
FELL_BEHIND = "the server fell behind"


@dataclass(frozen=True)
class Target:
    """A model on a server, and the bytes of one request for it."""

    host: str
    port: int
    model: str
    request: bytes


@dataclass
class Run:
    """What one run measured. ``asked``: concurrency, or requests a second."""

    mode: str
    asked: float
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    mean_batch: float = 0.0

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return len(self.latencies_s) / self.seconds if self.seconds else 0.0

    def percentile_s(self, percent: float) -> float:
        """The latency that ``percent`` of the answers kept; infinity where there are none."""
        return float(np.percentile(self.latencies_s, percent)) if self.latencies_s else float("inf")

    @property
    def num_errors(self) -> int:
        return sum(self.errors.values())


async def make_target(url: str, model: str, shapes: Mapping[str, tuple[int, ...]], rows: int, seed: int) -> Target:
    """Asks the server what the model takes, and makes a request of random numbers for it."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise RedlineError("bench-server", f"{url!r} is no address", "expected http://HOST:PORT")
    host, port = parts.hostname, parts.port or 8000
    inputs = (await fetch(host, port, f"/v2/models/{model}"))["inputs"]
    for name in shapes:
        if name not in [i["name"] for i in inputs]:
            raise RedlineError("--shapes", f"there is no input {name!r}", closest(name, [i["name"] for i in inputs]))
    rng = np.random.default_rng(seed)
    described, pieces = [], []
    for each in inputs:
        shape = shapes.get(each["name"]) or _shape(each, rows)
        data = bytes(tensors.to_bytes(_random(rng, each["datatype"], shape), each["datatype"]))
        parameters = {"binary_data_size": len(data)}
        described.append({"name": each["name"], "datatype": each["datatype"], "shape": shape, "parameters": parameters})
        pieces.append(data)
    text = orjson.dumps({"inputs": described, "parameters": {"binary_data_output": True}})
    body = text + b"".join(pieces)
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
    return Target(host, port, model, f"{head}Inference-Header-Content-Length: {len(text)}\r\n\r\n".encode() + body)


def _shape(given: Mapping[str, Any], rows: int) -> tuple[int, ...]:
    shape = list(given["shape"])
    if shape and shape[0] == -1:
        shape[0] = rows
    if -1 in shape:
        raise RedlineError(
            "bench-server", f"input {given['name']!r} has shape {shape}", "", f"give it: --shapes {given['name']}:..."
        )
    return tuple(shape)


def _random(rng: np.random.Generator, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    if datatype == types.BYTES:
        return np.full(shape, b"text", object)
    return (rng.random(shape) * 2).astype(types.NUMPY[datatype])


async def closed_loop(target: Target, concurrency: int, seconds: float, warmup_s: float = 0.5) -> Run:
    """``concurrency`` callers, each sending as soon as it has its answer."""
    run, counting = Run("concurrency", concurrency), [False]
    ends = time.perf_counter() + warmup_s + seconds

    async def caller() -> None:
        connection = await connect(target.host, target.port)
        while time.perf_counter() < ends:
            if not connection.open:
                connection = await connect(target.host, target.port)
            await _ask(connection, target, run, time.perf_counter(), counting)
        connection.close()

    callers = [asyncio.ensure_future(caller()) for _ in range(concurrency)]
    await asyncio.sleep(warmup_s)
    before, counting[0], started = await _counts(target), True, time.perf_counter()
    await asyncio.gather(*callers)
    run.seconds = time.perf_counter() - started
    run.mean_batch = _mean_batch(before, await _counts(target))
    return run


async def open_loop(
    target: Target, rate: float, seconds: float, seed: int = 0, warmup_s: float = 0.5, patience_s: float = float("inf")
) -> Run:
    """Requests at ``rate`` a second with exponential intervals (Poisson arrivals).

    Ends early, with an error, when more requests wait than come in ``patience_s``.
    """
    run, idle, counting = Run("rate", rate), deque[Connection](), [False]
    rng, made = random.Random(seed), 0
    tasks: set[asyncio.Future[None]] = set()
    started = time.perf_counter()
    due, ends, before = started, started + warmup_s + seconds, (0, 0)

    async def one(due: float, counts: list[bool]) -> None:
        nonlocal made
        if not idle and made < MAX_CONNECTIONS:
            made += 1
            idle.append(await connect(target.host, target.port))
        while not idle:
            await asyncio.sleep(0.0005)
        connection = idle.popleft()
        if not connection.open:
            connection = await connect(target.host, target.port)
        await _ask(connection, target, run, due, counts)
        idle.append(connection)

    while due < ends:
        if len(tasks) > max(MAX_BACKLOG, rate * patience_s):
            run.errors[FELL_BEHIND] = 1
            break
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        if not counting[0] and due - started >= warmup_s:
            before, counting = await _counts(target), [True]
        task = asyncio.ensure_future(one(due, counting))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += rng.expovariate(rate)
    if tasks:
        await asyncio.wait(tasks, timeout=30)
    run.seconds = time.perf_counter() - started - warmup_s
    run.mean_batch = _mean_batch(before, await _counts(target))
    for connection in idle:
        connection.close()
    return run


async def _ask(connection: Connection, target: Target, run: Run, since: float, counting: Sequence[bool]) -> None:
    try:
        status = await connection.ask(target.request)
    except ConnectionError as error:
        if counting[0]:
            run.errors[str(error)] = run.errors.get(str(error), 0) + 1
        return
    if not counting[0]:
        return
    if status == 200:
        run.latencies_s.append(time.perf_counter() - since)
    else:
        run.errors[str(status)] = run.errors.get(str(status), 0) + 1


async def _counts(target: Target) -> tuple[int, int]:
    """Rows and batches that the server counted; zeros where it does not tell."""
    try:
        found = (await fetch(target.host, target.port, f"/v2/models/{target.model}/stats"))["model_stats"][0]
    except (RedlineError, KeyError, IndexError, ValueError):
        return 0, 0
    return int(found["inference_count"]), int(found["execution_count"])


def _mean_batch(before: tuple[int, int], after: tuple[int, int]) -> float:
    executions = after[1] - before[1]
    return (after[0] - before[0]) / executions if executions > 0 else 0.0


async def find_limit(target: Target, p99_s: float, seconds: float, start: float = 10.0, steps: int = 7) -> list[Run]:
    """Open loops at rates that close in on the largest that keeps the p99 without errors; all runs, the best last.

    Each run has at least MIN_REQUESTS requests, and a rate fails only when it fails TRIES times.
    """
    runs: list[Run] = []
    good: Run | None = None
    low, high, rate = 0.0, float("inf"), start
    while low < MAX_RATE:
        held = await holds(target, rate, p99_s, seconds, runs)
        if held is not None:
            low, good = rate, held
        else:
            high = rate
        if high == float("inf"):
            rate *= 2
        elif steps and high - low > RESOLUTION * high:
            steps -= 1
            rate = (low + high) / 2 if low else high / 2
        else:
            break
    return [*(r for r in runs if r is not good), good] if good else runs


async def holds(target: Target, rate: float, p99_s: float, seconds: float, runs: list[Run]) -> Run | None:
    """A run at ``rate`` that kept the p99 without errors, None when no try did; every run is appended to ``runs``."""
    for seed in range(TRIES):
        run = await open_loop(target, rate, max(seconds, MIN_REQUESTS / rate), seed, patience_s=PATIENCE * p99_s)
        runs.append(run)
        if run.percentile_s(99) <= p99_s and not run.num_errors:
            return run
    return None
