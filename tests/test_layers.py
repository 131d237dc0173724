"""Who may import whom: the table of packages, held for every import of every file, imports inside functions included."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import redline

ROOT = Path(redline.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What a package may import besides itself and base. ``cli`` and the package's own front door may import everything.
MAY_IMPORT: dict[str, set[str]] = {
    "base": set(),
    "ir": set(),
    "ops": {"ir"},
    "frontend": {"ops", "ir"},
    "passes": {"ops", "ir"},
    "quant": {"ops", "ir"},
    "kernels": {"ir"},
    "lower": {"ops", "ir", "kernels"},
    "codegen": {"kernels", "ir"},
    "engine": set(),
    "runtime": {"engine"},
    "tune": {"codegen", "kernels", "runtime", "engine"},
    "builder": {"frontend", "passes", "quant", "ops", "ir", "lower", "kernels", "codegen", "tune", "engine", "runtime"},
    "llm": {"runtime", "engine"},
    "server": {"llm", "runtime", "engine"},
}
UNLIMITED = {"cli", "__init__", "__main__", "viz"}

# Third-party packages that only these may import; numpy, ml_dtypes, typer and rich are there on every machine.
ONLY_IN: dict[str, set[str]] = {"onnx": {"frontend"}, "onnxruntime": {"cli"}, "openvino": {"cli"}}
ONLY_IN |= {"google": {"frontend", "server"}}
ONLY_IN |= {name: {"server"} for name in ("hpack", "httptools", "opentelemetry", "orjson", "prometheus_client", "uvloop")}
NEEDS_NOTHING_BUT_NUMPY = ["redline", "redline.engine", "redline.runtime", "redline.server", "redline.cli"]
COMPILE_HALF = ["frontend", "passes", "quant", "ops", "ir", "lower", "kernels", "codegen", "tune", "builder"]
BLOCKED = ["onnx", "onnxruntime", "openvino", "triton", "torch", "ziglang", *(f"redline.{name}" for name in COMPILE_HALF)]


def package(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything the file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            prefix = ".".join(("redline", *path.relative_to(ROOT).parts[: -node.level], module)) if node.level else module
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


def local(name: str) -> str:
    """The package of Redline that a dotted name is in; "" for names from elsewhere."""
    parts = name.split(".")
    return parts[1] if parts[0] == "redline" and len(parts) > 1 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_table(path):
    here = package(path)
    if here in UNLIMITED:
        return
    allowed = MAY_IMPORT[here] | {here, "base"}
    wrong = [f"{path}:{line} {name}" for line, name in imports(path) if (there := local(name)) and there not in allowed]
    assert not wrong, f"{here} may import only {sorted(allowed)}"


def test_third_party_packages_stay_where_they_belong():
    wrong = []
    for path in FILES:
        for line, name in imports(path):
            top = name.split(".")[0]
            if package(path) not in ONLY_IN.get(top, {package(path)}):
                wrong.append(f"{path}:{line} {name}")
    assert not wrong


def test_no_import_hides_in_a_function():
    hidden = []
    for path in FILES:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = [n.lineno for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
                hidden += [f"{path}:{line}" for line in inside]
    assert not hidden


def test_no_two_packages_import_each_other():
    edges = {(package(path), there) for path in FILES for _, name in imports(path) if (there := local(name))}
    named = {(a, b) for a, b in edges if a in MAY_IMPORT and b in MAY_IMPORT and a != b}
    assert not {(a, b) for a, b in named if (b, a) in named}


def test_only_base_env_reads_the_environment():
    readers = [p for p in FILES if {"environ", "getenv"} & {getattr(n, "attr", "") for n in ast.walk(ast.parse(p.read_text()))}]
    assert readers == [ROOT / "base" / "env.py"]


BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if any(name == blocked or name.startswith(blocked + ".") for blocked in {blocked!r}):
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run_blocked(code: str) -> subprocess.CompletedProcess[str]:
    """Runs ``code`` in a Python that finds none of the compile half and, with an empty PATH, no compiler."""
    program = BLOCKER.format(blocked=BLOCKED) + code
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"PATH": ""}, cwd=ROOT.parent)


@pytest.mark.parametrize("name", NEEDS_NOTHING_BUT_NUMPY)
def test_the_run_half_imports_without_the_compile_half(name):
    done = run_blocked(f"import {name}")
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks():
    done = run_blocked("import redline.frontend")
    assert done.returncode == 1
    assert "is blocked" in done.stderr
