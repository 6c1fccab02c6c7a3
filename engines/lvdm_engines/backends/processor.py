"""Which processor this is, and what it can do. Knows no engine."""

import platform
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
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
