"""What OpenVINO computes in, and the trial that decides it."""

from types import SimpleNamespace

import numpy as np
import pytest

from lvdm_engines.backends.ov import precision
from lvdm_engines.backends.trial import Trial
from lvdm_engines.errors import BackendError, SessionError


@pytest.fixture
def able(monkeypatch):
    """Pretend that OpenVINO and the processor can compute in bf16, and that it is so fast."""

    def pretend(engine, processor, *, faster=True):
        can = ["FP32", *(["BF16"] if engine else [])]
        fake = SimpleNamespace(get_property=lambda *_: can)
        monkeypatch.setattr(precision, "core", lambda: fake)
        monkeypatch.setattr(precision, "multiplies_bf16", lambda: processor)
        monkeypatch.setattr(precision, "bf16_is_faster", lambda: faster)

    return pretend


@pytest.mark.parametrize(
    ("engine", "processor", "faster", "asked", "chosen"),
    [
        (True, True, True, None, "bf16"),
        (True, True, False, None, "f32"),  # it has instructions that are slow
        (True, False, True, None, "f32"),
        (False, True, True, None, "f32"),
        (True, True, True, "f32", "f32"),
        (True, False, False, "bf16", "bf16"),
        (False, False, False, "f32", "f32"),
    ],
)
def test_bf16_is_chosen_where_it_is_faster(able, engine, processor, faster, asked, chosen):
    able(engine, processor, faster=faster)
    assert precision.choose_precision(asked) == chosen


def test_bf16_is_refused_where_it_cannot_be_had(able):
    able(engine=False, processor=False)
    with pytest.raises(BackendError, match=r"got precision bf16, .*; leave it out, or give f32"):
        precision.choose_precision("bf16")


@pytest.mark.parametrize(("bf16", "f32", "faster"), [(1.0, 1.3, True), (1.0, 1.1, False)])
def test_bf16_has_to_be_faster_by_a_fifth(monkeypatch, bf16, f32, faster):
    monkeypatch.setattr(precision, "version", lambda: "1")
    monkeypatch.setattr(precision, "compare_once", lambda *_: Trial(bf16, f32))
    precision.bf16_is_faster.cache_clear()
    assert precision.bf16_is_faster() is faster
    precision.bf16_is_faster.cache_clear()


def test_a_trial_that_fails_leaves_f32_and_says_so(monkeypatch, caplog):
    def fail(*_):
        raise SessionError("convolutions: cannot run: no")

    monkeypatch.setattr(precision, "version", lambda: "1")
    monkeypatch.setattr(precision, "compare_once", fail)
    precision.bf16_is_faster.cache_clear()
    assert precision.bf16_is_faster() is False
    precision.bf16_is_faster.cache_clear()
    assert "openvino computes in f32, for bf16 cannot be tried: convolutions: cannot" in caplog.text


def test_what_is_tried_computes_the_same_in_both():
    pytest.importorskip("openvino")
    if "BF16" not in precision.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("the processor has no bf16")
    x = {"x": np.random.default_rng(0).standard_normal(precision._SHAPE, np.float32)}
    with precision._Convolutions("f32") as exact, precision._Convolutions("bf16") as rounded:
        expected, got = exact.run(x)["y"], rounded.run(x)["y"]
    assert expected.shape == precision._SHAPE
    np.testing.assert_allclose(got, expected, atol=0.02 * expected.max())
