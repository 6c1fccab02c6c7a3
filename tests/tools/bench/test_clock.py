"""What is timed, in which order, and what is told of it."""

import threading
import time

import pytest

from lvdm_engines.errors import BackendError
from lvdm_tools.bench.clock import alone, attempt, failure, in_turns, milliseconds, spread
from lvdm_tools.bench.end_to_end import Busy


@pytest.mark.parametrize(
    ("error", "told", "traced"),
    [
        (BackendError("no kernel; update the driver"), "no kernel; update the driver", False),
        (TypeError("incompatible\narguments"), "TypeError: incompatible", True),
        (OSError("no such file"), "OSError: no such file", True),
        (AssertionError(), "AssertionError: no reason given", True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_leaves_its_reason_and_an_unexpected_one_where_it_came_from(error, told, traced):
    def measure():
        raise error

    found = attempt(measure)
    assert found["failed"] == told
    assert ("in measure" in found.get("trace", "")) == traced


def test_calls_take_turns_and_what_fails_rests():
    order = []

    def call(name):
        order.append(name)
        if order.count("b") == 2:
            raise BackendError("out of memory")
        return name

    calls = {name: lambda name=name: call(name) for name in "ab"}
    kept = in_turns(calls, 0.0, least=3, warm=1)
    assert order == ["a", "b", "a", "b", "a", "a"][: len(order)]
    assert failure(kept["b"]) == {"failed": "out of memory"}


def test_what_is_told_are_the_median_and_the_quartiles():
    assert spread("ms", [1.0, 2.0, 3.0, 4.0, 100.0]) == {
        "ms": 3.0,
        "low": 2.0,
        "high": 4.0,
        "runs": 5,
    }


def test_times_are_in_milliseconds():
    told = milliseconds({"sleep": lambda: time.sleep(0.01), "nothing": int}, 0.0, 5)
    assert 10 <= told["sleep"]["ms"] < 5000  # a loaded machine may take its time
    assert told["nothing"]["ms"] < told["sleep"]["ms"]


def small(size):
    return {"size": len(b"x" * size)}  # written, so that it takes memory


@pytest.mark.slow
def test_peak_memory_is_that_of_the_measured_work_alone():
    mine = b"x" * (300 << 20)  # a process that starts another is no part of its peak
    found = alone(small, 1)
    more = alone(small, 200 << 20)
    assert found["size"] == 1
    assert len(mine) >> 20 > found["peak_mib"]
    assert 150 < more["peak_mib"] - found["peak_mib"] < 250


def test_time_is_counted_once_however_many_sessions_run():
    busy, started = Busy(), time.perf_counter()
    with busy.run("denoise"), busy.run("denoise"):
        time.sleep(0.01)
    assert 0.01 <= busy.seconds <= time.perf_counter() - started


def test_wall_time_is_divided_without_rest():
    busy = Busy()
    started = time.perf_counter()

    def decode():
        with busy.run("decode"):
            time.sleep(0.02)

    with busy.run("denoise"):
        time.sleep(0.01)
        other = threading.Thread(target=decode)
        other.start()
        other.join()
    time.sleep(0.02)
    while busy._host + 0.02 > time.thread_time():  # the host works
        pass
    with busy.run("denoise"):
        pass
    shares = busy.shares(time.perf_counter() - started)
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert min(shares[name] for name in ("denoise", "both", "host", "waiting")) > 0
    assert shares["decode"] == 0
