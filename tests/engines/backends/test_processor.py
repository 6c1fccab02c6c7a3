import os

import pytest

from lvdm_engines import opening
from lvdm_engines.backends import processor as module
from lvdm_engines.backends.backend import SessionOptions


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """Pretend that Linux says this of the processor."""

    def pretend(text):
        if text is not None:
            (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
        module.processor.cache_clear()

    yield pretend
    module.processor.cache_clear()


@pytest.mark.parametrize(
    ("flags", "bf16"), [("avx2 avx512f", False), ("avx512_bf16", True), ("amx_bf16 fma", True)]
)
def test_instructions_tell_whether_bf16_is_quick(cpuinfo, flags, bf16):
    cpuinfo(f"processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu {flags}\n\nflags\t: none\n")
    assert module.processor() == ("AMD EPYC", frozenset({"fpu", *flags.split()}))
    assert module.multiplies_bf16() is bf16


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "5000 100000"}, 1),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "200000 100000"}, 2),
        (
            "7:cpu,cpuacct:/a\n3:cpuset:/",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "400000",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "odd"}, 64),
        ("0::/elsewhere", {}, 64),
        ("0::/caf\udcff", {"cpu.max": "200000 100000"}, 2),  # a name that is no UTF-8
        ("odd", {}, 64),
    ],
)
def test_a_container_is_not_given_more_threads_than_it_may_run(
    tmp_path, monkeypatch, own, files, cores
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_bytes(os.fsencode(own))
    monkeypatch.setattr(module, "_GROUPS", tmp_path)
    monkeypatch.setattr(module, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert module.usable_cores() == cores


def test_sessions_are_opened_with_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(opening, "usable_cores", lambda: 3)
    monkeypatch.setattr(opening.os, "cpu_count", lambda: 64)
    assert opening._within_limits(SessionOptions()).threads == 3
    assert opening._within_limits(SessionOptions(threads=5)).threads == 5
    monkeypatch.setattr(opening.os, "cpu_count", lambda: 3)
    assert opening._within_limits(SessionOptions()).threads is None


def test_where_the_system_says_nothing_the_processor_still_has_a_name(cpuinfo):
    cpuinfo(None)
    name, instructions = module.processor()
    assert name
    assert instructions == frozenset()
