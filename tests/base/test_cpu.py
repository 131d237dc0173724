"""Facts of the machine, read from made-up files of the kernel."""

import os

import pytest

from redline.base import cpu


@pytest.fixture
def cpuinfo(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Fast One\nflags\t\t: sse avx\n\nprocessor\t: 1\nflags\t\t: other\n")
    return path


def test_features_and_name(cpuinfo, tmp_path):
    assert cpu.features(cpuinfo) == {"sse", "avx"}
    assert cpu.model_name(cpuinfo) == "Fast One"
    assert cpu.features(tmp_path / "none") == frozenset()
    assert cpu.model_name(tmp_path / "none") == "unknown processor"


def test_this_machine():
    assert "sse2" in cpu.features()
    assert 1 <= cpu.allowed_cores() <= (os.cpu_count() or 1)


def test_caches(tmp_path):
    for index, (level, kind, size) in enumerate([(1, "Data", "48K"), (1, "Instruction", "32K"), (2, "Unified", "2048K")]):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{value}\n")
    assert cpu.cache_bytes(1, 7, tmp_path) == 48 << 10
    assert cpu.cache_bytes(2, 7, tmp_path) == 2 << 20
    assert cpu.cache_bytes(3, 7, tmp_path) == 7


def group(root, path, **files):
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("membership", "quota"),
    [
        ("0::/a/b\n", 1.5),  # the nearest limit up the tree
        ("0::/a\n", 2.0),
        ("0::/\n", 0.0),
        ("0::/gone\n", 0.0),
        ("0::/a/../../x\n", 0.0),
        ("1:name=systemd:/\n4:cpu,cpuacct:/one\n", 0.5),
        ("4:cpu,cpuacct:/free\n", 0.0),
        ("4:memory:/one\n", 0.0),
        ("nonsense", 0.0),
        ("", 0.0),
    ],
)
def test_quota_of_control_groups(tmp_path, membership, quota):
    root = tmp_path / "cgroup"
    group(root, "", cpu__max="max 100000\n")
    group(root, "a", cpu__max="200000 100000\n")
    group(root, "a/b", cpu__max="150000 100000\n")
    group(root, "cpu,cpuacct/one", cpu__cfs_quota_us="50000\n", cpu__cfs_period_us="100000\n")
    group(root, "cpu,cpuacct/free", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    (tmp_path / "self").write_text(membership)
    assert cpu.cgroup_quota(root, tmp_path / "self") == quota


def test_a_quota_rounds_up_and_never_exceeds_the_mask(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for quota, cores in ((0.0, 8), (0.2, 1), (1.5, 2), (3.0, 3), (64.0, 8)):
        monkeypatch.setattr(cpu, "cgroup_quota", lambda quota=quota: quota)
        assert cpu.allowed_cores() == cores


def test_the_variable_comes_before_the_cores(monkeypatch):
    monkeypatch.setenv("REDLINE_NUM_THREADS", "5")
    assert cpu.num_threads() == 5
