"""A few faults of every kind; `tests/faults.py` tries them by the hundred."""

import pytest

pytest.importorskip("torch")
faults = pytest.importorskip("faults")


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    return faults.prepared(tmp_path_factory.mktemp("faults"))


BY_PROCESS = {"kill": 2, "interrupt": 2, "power": 4}  # cases of what takes seconds


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if kind in BY_PROCESS else [])
        for kind in faults.KINDS
    ],
)
def test_nothing_is_lost_and_every_error_is_one_line(kind, begin):
    try:
        failures = faults.tried(kind, range(BY_PROCESS.get(kind, 15)), begin)
    except faults.toy_disk.NoDiskError as err:
        pytest.skip(f"no power loss can be played here: {err}")
    assert failures == []


def test_a_case_that_does_not_hold_is_told(begin, monkeypatch):
    monkeypatch.setitem(faults.KINDS, "kill", lambda place: faults.expect(False, "it is lost"))
    (told,) = faults.tried("kill", [7], begin)
    assert told.startswith("kill 7: ")
    assert "it is lost" in told
