"""Clocks: calls that take turns, failures that leave a reason, memory of a process of its own.

Knows neither torch nor backends.
"""

import math
import operator
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lvdm_engines.errors import LvdmError

_TRACE = 4  # parts of a traceback that are kept
_PAUSE = 0.02  # seconds in which the threads of the one before fall asleep
_MOST = 1000  # rounds

Found = dict[str, Any]


def attempt(measure: Callable[..., Any], *arguments: Any) -> Any:
    """Return a measurement, or why there is none: one failure must not hide the others."""
    try:
        return measure(*arguments)
    except LvdmError as err:
        return {"failed": str(err)[:300]}
    except Exception as err:  # noqa: BLE001 - bindings that never ran here may raise anything
        line = (str(err).strip().splitlines() or ["no reason given"])[0]
        trace = traceback.format_exception(err)[-_TRACE:]
        return {"failed": f"{type(err).__name__}: {line}"[:300], "trace": "".join(trace)}


def failure(*found: Any) -> Found | None:
    """Return the first of these that is a failure of `attempt`, if any."""
    return next((f for f in found if isinstance(f, dict) and "failed" in f), None)


def in_turns(
    calls: Mapping[str, Callable[[], Any]],
    seconds: float,
    *,
    least: int = 5,
    warm: int = 3,
    guard: Callable[[Callable[[], Any]], Any] = attempt,
) -> dict[str, Any]:
    """Run calls in turns, after `warm` unmeasured rounds: `least`, or as `seconds` for each allow.

    Returns for each what its calls returned, in a list, or its failure, after which it rests.
    """
    kept: dict[str, Any] = {name: [] for name in calls}
    round_ = -warm
    end = math.inf
    while round_ < least or (round_ < _MOST and time.perf_counter() < end):
        if round_ == 0:
            end = time.perf_counter() + seconds * len(calls)
        for name, call in calls.items():
            if failure(kept[name]):
                continue
            if len(calls) > 1:
                time.sleep(_PAUSE)
            got = guard(call)
            if failure(got):
                kept[name] = got
            elif round_ >= 0:
                kept[name].append(got)
        round_ += 1
    return kept


def milliseconds(
    calls: Mapping[str, Callable[[], object]], seconds: float, rounds: int
) -> dict[str, Found]:
    """Time calls in turns; returns the `spread` of each in `ms`, or why there is none."""
    timed = {name: _timed(call) for name, call in calls.items()}
    kept = in_turns(timed, seconds, least=rounds, warm=(rounds + 1) // 2)
    return {name: failure(times) or spread("ms", times) for name, times in kept.items()}


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """Time one call by itself; raises what it raises."""
    times = in_turns({"": _timed(call)}, seconds, guard=operator.call)[""]
    return float(statistics.median(times))


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - started)

    return run


def spread(unit: str, values: list[float]) -> Found:
    """Return the median of some values under the name of their unit, their quartiles and number."""
    low, median, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return {unit: median, "low": low, "high": high, "runs": len(values)}


def alone(measure: Callable[..., Found], *arguments: Any) -> Found:
    """Run a module's function in a process of its own and add that process's peak memory."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_with_peak, measure, arguments).result()


def peak_mib(measure: Callable[[], Found]) -> Any:
    """Return the peak memory of a process that does this and nothing else, or why there is none."""
    found = attempt(alone, measure)
    return failure(found) or found["peak_mib"]


def _with_peak(measure: Callable[..., Found], arguments: tuple[Any, ...]) -> Found:
    found = measure(*arguments)
    # not getrusage: its peak is that of the process that started this one, if that is larger
    status = Path("/proc/self/status").read_text("ascii")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return {**found, "peak_mib": int(kib) / 1024}
