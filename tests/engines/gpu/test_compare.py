"""`verify --backend`: a backend against the CPU."""

import numpy as np
import pytest

pytest.importorskip("torch")

from lvdm_engines.backends.registry import SessionOptions
from lvdm_engines.errors import ExportError
from lvdm_engines.session import open_session
from lvdm_export.engines_verify import LIMITS, Comparison, compare, compare_bundle


class Wrong:
    """A session whose answers were tampered with."""

    def __init__(self, session, change):
        self.inputs, self.outputs = session.inputs, session.outputs
        self._session, self._change = session, change

    def run(self, feeds):
        eps = self._session.run(feeds)["eps"]
        return {"eps": self._change(eps.copy(), feeds)}


@pytest.fixture
def fixed_bundle(make_bundle):
    return make_bundle()


@pytest.fixture
def compared(fixed_bundle):
    def run(change):
        source = fixed_bundle.graph("predict")
        with open_session(fixed_bundle, "predict", "cpu", SessionOptions(threads=1)) as cpu:
            return compare(Wrong(cpu, change), cpu, source, fixed_bundle)

    return run


def late(eps, feeds):
    eps[-1] *= np.float32(1.01)
    return eps


def overflowing(eps, feeds):
    eps[np.abs(feeds["latents"]).max(axis=(1, 2, 3, 4)) > 30] = np.inf
    return eps


def test_the_same_backend_is_equal_and_never_overflows(compared):
    found = compared(lambda eps, feeds: eps)
    assert found == Comparison(0.0, 0.0, None, True, 0.0, 64.0, None)
    assert found.problems(LIMITS["fp32"]) == []


def test_an_error_of_one_row_is_found_by_every_measure(compared):
    found = compared(late)
    assert found.most == pytest.approx(0.01, rel=0.1)
    assert not found.equal_rows
    assert found.batch > 0
    assert "equal rows of a batch come out different" in found.problems(LIMITS["fp16"])


def test_overflow_is_searched_for_beyond_ordinary_inputs(compared):
    found = compared(overflowing)
    assert (found.finite_to, found.overflows_at) == (4.0, 16.0)
    assert found.problems(LIMITS["fp16"]) == []


def test_nan_on_ordinary_inputs_is_a_problem(compared):
    found = compared(lambda eps, feeds: eps * np.float32(np.nan))
    assert "NaN or infinity on ordinary inputs" in found.problems(LIMITS["fp16"])
    assert any("mean error nan" in problem for problem in found.problems(LIMITS["fp16"]))


def test_a_whole_bundle_is_compared_and_reported_by_graph(fixed_bundle):
    lines = []
    found = compare_bundle(fixed_bundle, "cpu", lines.append, options=SessionOptions(threads=1))
    assert list(found) == ["predict", "interpolate"]
    assert found["predict"]["mean"] == 0
    assert lines == [f"{name}: comparing cpu with the CPU" for name in found]


def test_graphs_outside_the_limits_are_named(fixed_bundle, monkeypatch):
    def opened(bundle, name, backend, options=None):
        session = open_session(bundle, name, "cpu", SessionOptions(threads=1))
        if backend == "tensorrt":
            run = session.run
            session.run = lambda feeds: {"eps": run(feeds)["eps"] * np.float32(1.1)}
        return session

    monkeypatch.setattr("lvdm_export.engines_verify.open_session", opened)
    with pytest.raises(ExportError, match=r"on tensorrt: predict: mean error 0\.1, expected at mo"):
        compare_bundle(fixed_bundle, "tensorrt", lambda line: None)
