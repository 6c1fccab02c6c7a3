"""A few kills of every kind; `tests/faults.py` tries them by the hundred."""

import pytest

pytest.importorskip("torch")
faults = pytest.importorskip("faults")


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    return faults.prepared(tmp_path_factory.mktemp("faults"))


DAILY = {"kill": 4, "interrupt": 3, "power": 4, "build": 1, "train": 2}
KINDS = [
    pytest.param(kind, marks=[pytest.mark.exhaustive] if kind in ("build", "train") else [])
    for kind in faults.KINDS
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_every_error_is_one_line(kind, begin):
    try:
        failures = faults.tried(kind, range(DAILY[kind]), begin)
    except faults.toy_disk.NoDiskError as err:
        pytest.skip(f"no power loss can be played here: {err}")
    assert failures == []


@pytest.mark.slow
def test_a_case_that_does_not_hold_is_told(begin, monkeypatch):
    monkeypatch.setitem(faults.KINDS, "kill", lambda place: faults.expect(False, "it is lost"))
    (told,) = faults.tried("kill", [7], begin)
    assert told.startswith("kill 7: ")
    assert "it is lost" in told
