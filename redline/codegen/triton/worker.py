"""A process that compiles: requests as lines of JSON on stdin, one line on stdout when each is done.

    python -m redline.codegen.triton.worker FOLDER

writes KEY.cubin and KEY.json (or only KEY.json, with the error) into FOLDER for each request.
"""

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from redline.base.files import appearing
from redline.codegen.triton import nvrtc


def compile_one(folder: Path, request: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The cubin and what a launch needs to know."""
    if request["language"] == "cuda":
        return nvrtc.cubin(request["text"], request["arch"]), nvrtc.facts(request["signature"], request["shared_bytes"])
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "kernel.py"
        path.write_text(request["text"])
        spec = importlib.util.spec_from_file_location("kernel", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        kernel = module.KERNEL
        names = kernel.arg_names
        pointers = [i for i, kind in enumerate(request["signature"]) if kind.startswith("*") and request["aligned"][i]]
        source = ASTSource(
            fn=kernel, signature=dict(zip(names, request["signature"], strict=True)), constexprs={},
            attrs={(i,): [["tt.divisibility", 16]] for i in pointers},
        )  # fmt: skip
        options = {"num_warps": request["num_warps"], "num_stages": request["num_stages"]}
        result = triton.compile(source, target=GPUTarget("cuda", request["arch"], 32), options=options)
    meta = result.metadata
    if meta.global_scratch_size or meta.num_warps != request["num_warps"]:
        raise ValueError("the kernel needs a launch that Redline does not make")
    facts = {"shared": meta.shared, "maps": meta.tensordesc_meta or []}
    return result.asm["cubin"], facts


def main(folder: Path) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # compilers may print
    for line in sys.stdin:
        key, request = json.loads(line)
        try:
            cubin, facts = compile_one(folder, request)
            _write(folder / f"{key}.cubin", cubin)
        except Exception as error:
            facts = {"error": f"{type(error).__name__}: {error}"[:2000]}
        _write(folder / f"{key}.json", json.dumps(facts).encode())
        replies.write("done\n")
        replies.flush()


def _write(path: Path, content: bytes) -> None:
    with appearing(path) as file:
        file.write(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
