"""Which processor this is, and what it can do. Knows no engine."""

import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_BF16 = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}  # instructions, as Linux calls them


@cache
def processor() -> tuple[str, frozenset[str]]:
    """Return the processor's name, which several kinds may share, and its instructions."""
    facts: dict[str, str] = {}
    try:
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or platform.machine()
    return name, frozenset((facts.get("flags") or facts.get("Features") or "").split())


def multiplies_bf16() -> bool:
    """Tell whether it has instructions for products of bfloat16, as far as the system says."""
    return not _BF16.isdisjoint(processor()[1])


def usable_cores() -> int:
    """Return how many cores this process may keep busy: its affinity, and its container's quota.

    More threads than that wait for each other, or are stopped until the next period.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1  # macOS, Windows
    return max(1, min([cores, *map(math.ceil, _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the limits, in cores, of the control groups that this process is in (Linux)."""
    try:
        lines = os.fsdecode(_OWN_GROUPS.read_bytes()).splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = _GROUPS / controllers / own.strip("/")
        while folder != _GROUPS.parent:  # a limit of those above holds as well
            with suppress(OSError, ValueError, ZeroDivisionError):
                quota, period = _limit(folder, unified=not controllers)
                if quota > 0:
                    yield quota / period
            folder = folder.parent


def _limit(folder: Path, *, unified: bool) -> tuple[int, int]:
    """Return quota and period. Raises OSError or ValueError where there is none."""
    if unified:
        words = (folder / "cpu.max").read_text().split()
    else:  # where -1 is no limit
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [(folder / name).read_text() for name in names]
    quota, period = map(int, words)
    return quota, period
