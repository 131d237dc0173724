"""Redline's server beside others on an identity model FP32[16]: wrk over HTTP, and tritonclient.grpc.aio over gRPC.

Redline runs an engine that it built from an ONNX model of one Identity node, Triton its Python backend, MLServer a class.

    python bench/server_contest.py --triton-python PYTHON_WITH_PYTRITON --mlserver-python PYTHON_WITH_MLSERVER \
        --wrk WRK --output results.json

The servers take turns, block by block, on the same machine as their client. Needs wrk, and the packages nvidia-pytriton (which
brings Triton's binary) and mlserver in Python environments of their own; a server whose environment is not given is left out.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import tritonclient.grpc.aio as grpc_aio
from onnx import TensorProto, helper

from redline.base import cpu

LUA = Path(__file__).with_name("server_infer.lua")
CONFIG = """{backend}
max_batch_size: 64
input [ {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] }} ]
output [ {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: 100 }}
"""
TRITON_MODEL = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [
            pb.InferenceResponse([pb.Tensor("OUTPUT0", pb.get_input_tensor_by_name(r, "INPUT0").as_numpy())]) for r in requests
        ]
"""
MLSERVER_MODEL = """
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput

class Identity(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        given = payload.inputs[0]
        output = ResponseOutput(name="OUTPUT0", shape=given.shape, datatype=given.datatype, data=given.data)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Peer:
    """A server process with its HTTP and gRPC ports. ``script``: the wrk script that it understands."""

    def __init__(self, name, command, http, grpc, script=LUA, env=None, cwd=None):
        self.name, self.http, self.grpc, self.script = name, http, grpc, script
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  (lives with the process)
        self.process = subprocess.Popen(command, env=env, cwd=cwd, stdout=self.log, stderr=self.log)

    def wait_ready(self, model="identity", seconds=90):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.http), 1) as connection:
                    connection.sendall(
                        f"GET /v2/models/{model}/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
                    )
                    if b" 200 " in connection.recv(100):
                        return
            except OSError:
                pass
            time.sleep(0.2)
        self.log.seek(0)
        raise SystemExit(f"{self.name} did not start:\n{self.log.read().decode()[-2000:]}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def identity_model():
    """INPUT0[n, 16] -> OUTPUT0[n, 16], both FP32."""
    given, result = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16]) for name in ("INPUT0", "OUTPUT0")]
    graph = helper.make_graph([helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])], "identity", [given], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def redline(folder):
    root = folder / "redline"
    (root / "identity" / "1").mkdir(parents=True)
    onnx.save(identity_model(), root / "identity" / "1" / "model.onnx")
    (root / "identity" / "config.pbtxt").write_text(CONFIG.format(backend='backend: "redline"'))
    http, grpc = free_port(), free_port()
    ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", "-1"]
    return Peer("Redline", [sys.executable, "-m", "redline", "serve", str(root), *ports], http, grpc)


def triton(folder, python):
    where = "import pytriton, sysconfig; print(pytriton.__path__[0]); print(sysconfig.get_config_var('LIBDIR'))"
    package, libraries = subprocess.check_output([python, "-c", where], text=True).split()
    home, root, backends = Path(package) / "tritonserver", folder / "triton", folder / "backends"
    shutil.copytree(home / "backends", backends)
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.check_output([python, "-c", asked], text=True).strip()
    shutil.copy(home / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    (root / "identity" / "1").mkdir(parents=True)
    (root / "identity" / "config.pbtxt").write_text(CONFIG.format(backend='backend: "python"'))
    (root / "identity" / "1" / "model.py").write_text(TRITON_MODEL)
    http, grpc = free_port(), free_port()
    command = [
        str(home / "bin" / "tritonserver"), f"--model-repository={root}", f"--backend-directory={backends}",
        f"--http-port={http}", f"--grpc-port={grpc}", "--allow-metrics=false", "--log-info=false",
    ]  # fmt: skip
    packages = "import numpy; print(numpy.__path__[0] + '/..')"
    site = subprocess.check_output([python, "-c", packages], text=True).strip()
    env = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{libraries}:{':'.join(map(str, Path(package).parent.glob('*pytriton.libs')))}",
        "PYTHONPATH": site,
    }
    env["PATH"] = f"{Path(python).parent}:{env['PATH']}"
    return Peer("Triton", command, http, grpc, env=env)


def mlserver(folder, python):
    root = folder / "mlserver"
    root.mkdir()
    (root / "identity_model.py").write_text(MLSERVER_MODEL)
    (root / "model-settings.json").write_text(json.dumps({"name": "identity", "implementation": "identity_model.Identity"}))
    http, grpc = free_port(), free_port()
    settings = {"http_port": http, "grpc_port": grpc, "metrics_port": free_port(), "parallel_workers": 0, "debug": False}
    (root / "settings.json").write_text(json.dumps(settings))
    script = folder / "mlserver.lua"
    body = {"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": [1.0] * 16}]}
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = [[{json.dumps(body)}]]\nwrk.headers["Content-Type"] = "application/json"\n'
    )
    command = [str(Path(python).parent / "mlserver"), "start", str(root)]
    env = {**os.environ, "PATH": f"{Path(python).parent}:{os.environ['PATH']}", "PYTHONPATH": str(root)}
    return Peer("MLServer", command, http, grpc, script=script, env=env, cwd=root)


UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def wrk(program, peer, concurrency, seconds):
    """Requests a second, p50 and p99 in ms."""
    url = f"http://127.0.0.1:{peer.http}/v2/models/identity/infer"
    command = [program, "-t1", f"-c{concurrency}", f"-d{seconds}s", "--latency", "-s", str(peer.script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text:
        raise SystemExit(f"{peer.name} refused requests:\n{text}")
    times = {key: float(value) * UNITS[unit] for key, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)\b", text)}
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), "p50_ms": times["50"], "p99_ms": times["99"]}


async def grpc_load(peer, concurrency, seconds):
    client = grpc_aio.InferenceServerClient(f"127.0.0.1:{peer.grpc}")
    given = grpc_aio.InferInput("INPUT0", [1, 16], "FP32")
    given.set_data_from_numpy(np.ones((1, 16), np.float32))
    ends, latencies = time.perf_counter() + seconds, []

    async def caller():
        while (started := time.perf_counter()) < ends:
            await client.infer("identity", [given])
            latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(concurrency)])
    took = time.perf_counter() - started
    await client.close()
    low, high = np.percentile(latencies, [50, 99]) * 1e3
    return {"rate": len(latencies) / took, "p50_ms": low, "p99_ms": high}


def measure(peer, load, concurrency, seconds, program):
    if load == "wrk":
        return wrk(program, peer, concurrency, seconds)
    return asyncio.run(grpc_load(peer, concurrency, seconds))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("triton", "mlserver"):
        parser.add_argument(f"--{name}-python", default="")
    parser.add_argument("--wrk", default="wrk")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--output", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        peers = [redline(folder)]
        try:
            if options.triton_python:
                peers.append(triton(folder, options.triton_python))
            if options.mlserver_python:
                peers.append(mlserver(folder, options.mlserver_python))
            for peer in peers:
                peer.wait_ready()
            rows = contest(peers, options)
        finally:
            for peer in peers:
                peer.stop()
    hardware = f"{cpu.model_name()}, {cpu.allowed_cores()} cores shared with the client, load before {os.getloadavg()[0]:.2f}"
    print(hardware)
    for row in rows:
        print(f"{row['load']:>5} {row['concurrency']:>3} {row['server']:<9} {row['rate']:>9.0f} req/s"
              f"  p50 {row['p50_ms']:.3f} ms  p99 {row['p99_ms']:.3f} ms")  # fmt: skip
    if options.output:
        Path(options.output).write_text(json.dumps({"hardware": hardware, "rows": rows}, indent=1))


def contest(peers, options):
    """The medians over blocks in which the servers take turns; each block is preceded by an uncounted second."""
    rows = []
    for load in ("wrk", "grpc"):
        for concurrency in options.concurrency:
            found = {peer.name: [] for peer in peers}
            for block in range(options.blocks):
                for peer in peers:
                    if block == 0:
                        measure(peer, load, concurrency, 1, options.wrk)
                    found[peer.name].append(measure(peer, load, concurrency, options.seconds, options.wrk))
            for name, runs in found.items():
                medians = {key: statistics.median(run[key] for run in runs) for key in ("rate", "p50_ms", "p99_ms")}
                rows.append({"load": load, "concurrency": concurrency, "server": name, **medians})
    return rows


if __name__ == "__main__":
    main()
