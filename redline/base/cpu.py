"""What the processor and the kernel of this machine say about themselves (Linux): instruction sets, caches, allowed cores."""

import math
import os
from pathlib import Path

from redline.base import env

CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
CGROUP = Path("/sys/fs/cgroup")
SELF_CGROUP = Path("/proc/self/cgroup")


def features(cpuinfo: Path | None = None) -> frozenset[str]:
    """The instruction-set flags of the first processor, in /proc/cpuinfo's names; empty where there is no such file."""
    try:
        text = (cpuinfo or CPUINFO).read_text()
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset(next((value.split() for key, _, value in lines if key.strip() in ("flags", "Features")), ()))


def model_name(cpuinfo: Path | None = None) -> str:
    """The processor's marketing name, for reports; "unknown processor" where the kernel does not tell."""
    try:
        text = (cpuinfo or CPUINFO).read_text()
    except OSError:
        text = ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), "unknown processor")


def cache_bytes(level: int, default: int, caches: Path | None = None) -> int:
    """Bytes of one core's data (or unified) cache of ``level``; ``default`` where the kernel does not tell."""
    for index in sorted((caches or CACHES).glob("index*")):
        try:
            kind, found = (index / "type").read_text().strip(), (index / "level").read_text().strip()
            size = (index / "size").read_text().strip()
        except OSError:
            continue
        if kind in ("Data", "Unified") and found == str(level) and size.endswith("K") and size[:-1].isdecimal():
            return int(size[:-1]) << 10
    return default


def allowed_cores() -> int:
    """How many threads may usefully run: the affinity mask, cut by the CPU quota of the control group, at least 1."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def num_threads() -> int:
    """REDLINE_NUM_THREADS where set, else ``allowed_cores()``."""
    return env.num_threads() or allowed_cores()


def cgroup_quota(root: Path | None = None, membership: Path | None = None) -> float:
    """The CPU quota of this process in cores (v2 and v1 control groups, the nearest limit up the tree); 0 for none."""
    try:
        lines = (membership or SELF_CGROUP).read_text().splitlines()
    except OSError:
        return 0.0
    quotas = [quota for line in lines for quota in _quotas(root or CGROUP, line)]
    return min(quotas, default=0.0)


def _quotas(root: Path, line: str) -> list[float]:
    """The limits that apply along one line ``hierarchy:controllers:path`` of /proc/self/cgroup."""
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if controllers and "cpu" not in controllers.split(","):
        return []
    base = root / controllers if controllers else root
    folder = base / path.lstrip("/")
    folders = [folder, *folder.parents][: len(folder.relative_to(base).parts) + 1] if ".." not in path else [base]
    return [quota for f in {base, *folders} if (quota := _quota(f))]


def _quota(folder: Path) -> float:
    """``cpu.max`` (v2) or ``cpu.cfs_quota_us`` over its period (v1) of one control group; 0 for none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if quota not in ("max", "-1") else 0.0
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0
