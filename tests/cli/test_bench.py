"""The verb bench: the arithmetic of latencies on a clock of its own, and the report. No assertion rests on real time."""

import json

import pytest
from typer.testing import CliRunner

from redline.cli import bench
from redline.cli.app import app
from redline.cli.latency import Latency, measure
from redline.cli.timing import Clock

runner = CliRunner()


class Script:
    """A clock on which the calls last as long as the script says, again and again."""

    def __init__(self, *durations):
        self.time, self.durations, self.calls = 0.0, durations, 0

    def call(self):
        self.time += self.durations[self.calls % len(self.durations)]
        self.calls += 1

    def clock(self):
        return Clock(lambda: self.time, lambda seconds: None)


def test_warm_up_is_not_counted():
    script = Script(8, 1, 1, 1, 1, 1, 1)
    latency = measure(script.call, seconds=4, warmup_s=8, clock=script.clock())
    assert (latency.warmup_calls, latency.calls, latency.throughput) == (1, 4, 1)
    assert latency.max == 1


def test_at_least_one_call_is_counted():
    script = Script(5)
    latency = measure(script.call, seconds=0, warmup_s=0, clock=script.clock())
    assert (script.calls, latency.warmup_calls, latency.calls, latency.median) == (2, 1, 1, 5)


def test_the_spread_of_a_hundred_times():
    latency = Latency.of([float(i) for i in range(100, 0, -1)])
    assert latency.times() == {"min": 1, "mean": 50.5, "median": 50.5, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    assert latency.throughput == pytest.approx(100 / 5050)


@pytest.fixture
def engine(monkeypatch, fake_engine):
    made = fake_engine()
    monkeypatch.setattr(bench, "load", lambda path, num_threads: made)
    return made


QUICK = ["--seconds", "0", "--warmup", "0"]


def test_the_report(engine):
    result = runner.invoke(app, ["bench", "small.engine", *QUICK])
    assert result.exit_code == 0
    hardware, warmup, throughput, latency = result.stdout.splitlines()
    assert hardware.endswith(" cores allowed, 2 threads used")
    assert warmup == "warm-up    1 calls in 0 s, not counted; then 1 calls"
    assert throughput.endswith(" inferences/s")
    assert all(f"{name} " in latency for name in ("min", "mean", "median", "p90", "p95", "p99", "max"))


def test_the_report_as_json(engine):
    answer = json.loads(runner.invoke(app, ["bench", "small.engine", *QUICK, "--profile", "--json"]).stdout)
    assert answer["latency"]["calls"] == 1
    assert [kernel["step"] for kernel in answer["profile"]["kernels"]] == [0, 1]
    assert answer["profile"]["kernels"][0] == {
        "step": 0, "family": "matmul", "seconds": pytest.approx(3e-6), "share": pytest.approx(0.75),
        "flops": 48, "num_bytes": 104, "nodes": ["dense", "bias"],
    }  # fmt: skip


def test_the_profile_gives_rates_and_shares(engine):
    lines = [line.split() for line in runner.invoke(app, ["bench", "small.engine", *QUICK, "--profile"]).stdout.splitlines()]
    assert ["0", "matmul", "3.0", "us", "75.0%", "0.0", "0.0", "dense,", "bias"] in lines
    assert ["1", "nest", "1.0", "us", "25.0%", "0.0", "0.0", "relu"] in lines


def test_a_peer_takes_turns_on_the_same_inputs(engine, perceptron, monkeypatch):
    seen = {}

    def alternate(contestants, seconds_per_block, blocks):
        seen.update({name: call() for name, call in contestants.items()}, blocks=blocks)
        return {name: bench.Stats(3, *[i / 1e3] * 5) for i, name in enumerate(contestants, 1)}

    monkeypatch.setattr(bench, "alternate", alternate)
    result = runner.invoke(app, ["bench", "small.engine", str(perceptron), "--vs", "onnxruntime", "--seconds", "2"])
    assert result.exit_code == 0, result.output
    own, peer = [line.split() for line in result.stdout.splitlines()[-2:]]
    assert own[-8:] == ["small.engine", "3", *["1.000"] * 5, "1.00"]
    assert peer[-7:] == ["3", *["2.000"] * 5, "2.00"]
    (peer_answer,) = (answer for name, answer in seen.items() if name.startswith("ONNX Runtime"))
    assert peer_answer["y"] == pytest.approx(seen["Redline small.engine"]["y"], rel=1e-5)
    assert seen["blocks"] == 4


def test_a_peer_needs_the_model(engine):
    result = runner.invoke(app, ["bench", "small.engine", "--vs", "onnxruntime"])
    assert result.exit_code == 2
    assert "[--vs] no model is given; name it after the engine" in result.stderr


def test_an_unknown_peer(engine, perceptron):
    result = runner.invoke(app, ["bench", "small.engine", str(perceptron), "--vs", "onxruntime"])
    assert result.exit_code == 2
    assert "did you mean 'onnxruntime'?" in result.stderr


def test_the_profile_says_how_much_of_the_time_it_covers(engine, monkeypatch, capsys):
    """Twenty repeats of 4 us in calls that took 800 us: nine tenths of the time are missing, and the report shows it."""
    ticks = iter([1.0, 1.0 + 800e-6])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(ticks))
    assert bench.profile_kernels(engine, {})["coverage"] == pytest.approx(0.1)
    monkeypatch.undo()
    bench._print_profile({"coverage": 0.1, "kernels": []})
    assert "they cover 10% of the calls' time" in capsys.readouterr().out


def test_a_page_is_written(tmp_path, engine):
    page = tmp_path / "pages" / "report.html"
    page.parent.mkdir()
    result = runner.invoke(app, ["bench", "small.engine", *QUICK, "--html", str(page)])
    assert result.exit_code == 0, result.output
    assert "small.engine" in page.read_text()
    assert list(page.parent.iterdir()) == [page]
