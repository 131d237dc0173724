"""docs/migrating-from-triton.md, executed: a repository as Triton has it, with its config.pbtxt, served as it is."""

import subprocess
import sys

import numpy as np
import onnx
import tritonclient.http as http_client
from serving import CLASSES, FEATURES, add_network, expected, network

CONFIG = """name: "classifier"
platform: "onnxruntime_onnx"
max_batch_size: 4
input [
  {
    name: "x"
    data_type: TYPE_FP32
    dims: [ 16 ]
  }
]
output [
  {
    name: "y"
    data_type: TYPE_FP32
    dims: [ 8 ]
    label_filename: "labels.txt"
  }
]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 2, 4 ]
  max_queue_delay_microseconds: 100
}
version_policy: { latest { num_versions: 2 } }
model_warmup [ { name: "random" batch_size: 2
  inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 16 ] random_data: true } } } ]
"""


def test_a_repository_of_triton_is_served_as_it_is(tmp_path):
    folder = tmp_path / "models" / "classifier"
    (folder / "1").mkdir(parents=True)
    (folder / "2").mkdir()
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "labels.txt").write_text("".join(f"class {i}\n" for i in range(CLASSES)))
    onnx.save(network(), folder / "1" / "model.onnx")
    onnx.save(network(3.0), folder / "2" / "model.onnx")
    add_network(tmp_path / "models", "engines", batches=(4,))
    command = [sys.executable, "-m", "redline", "serve", str(tmp_path / "models"), "--http-port", "0", "--grpc-port", "0"]
    process = subprocess.Popen([*command, "--metrics-port", "-1"], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("serving classifier 1, classifier 2, engines 1 at http "), line
        with http_client.InferenceServerClient(line.split("http ")[1].split(",")[0]) as client:
            x = np.random.default_rng(0).standard_normal((3, FEATURES)).astype(np.float32)
            given = http_client.InferInput("x", [3, FEATURES], "FP32")
            given.set_data_from_numpy(x)
            for version, shift in (("1", 0.0), ("2", 3.0), ("", 3.0)):
                found = client.infer("classifier", [given], model_version=version).as_numpy("y")
                np.testing.assert_allclose(found, expected(x, shift), rtol=1e-5, atol=1e-5)
            best = client.infer("classifier", [given], outputs=[http_client.InferRequestedOutput("y", class_count=1)])
            assert best.as_numpy("y")[0, 0].decode().split(":")[2].startswith("class ")
            assert client.infer("engines", [given]).as_numpy("y").shape == (3, CLASSES)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
