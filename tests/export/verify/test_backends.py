"""`verify --backend`: a backend against the CPU."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import toy
from msgspec.structs import replace

pytest.importorskip("torch")

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.backends.plan_facts import Range
from lvdm_engines.bundle import Bundle
from lvdm_engines.errors import (
    BackendError,
    DeviceMemoryError,
    ExportError,
    OptionsError,
    SessionError,
)
from lvdm_engines.manifest import TensorSpec
from lvdm_engines.opening import open_session
from lvdm_export.verify.backends import check_report, compare, compare_bundle
from lvdm_export.verify.limits import BF16, LIMITS, Comparison, limits_of
from lvdm_export.verify.probes import make_probes


class Wrong:
    """A session whose answers were tampered with."""

    def __init__(self, session, change, profiles=()):
        self.inputs, self.outputs = session.inputs, session.outputs
        self.profiles = profiles
        self.sizes = []
        self._session, self._change = session, change

    def run(self, feeds):
        self.sizes.append(len(feeds["latents"]))
        eps = self._session.run(feeds)["eps"]
        return {"eps": self._change(eps.copy(), feeds)}


@pytest.fixture
def fixed_bundle(tmp_path):
    """A bundle whose predict and interpolate graphs are one file."""
    return toy.write_bundle(tmp_path / "bundle")


@pytest.fixture
def probe(fixed_bundle):
    facts = fixed_bundle.manifest.graphs["predict"]
    return make_probes("predict", facts.inputs, fixed_bundle.manifest.model, 1)[0]


@pytest.fixture
def compared(fixed_bundle, probe):
    def run(change, profiles=()):
        with open_session(fixed_bundle, "predict", "cpu", SessionOptions(threads=1)) as cpu:
            return compare(Wrong(cpu, change, profiles), cpu, probe)

    return run


def same(eps, feeds):
    return eps


def late(eps, feeds):
    eps[-1] *= np.float32(1.01)
    return eps


def overflowing(eps, feeds):
    eps[np.abs(feeds["latents"]).max(axis=(1, 2, 3, 4)) > 30] = np.inf
    return eps


def test_the_same_backend_is_equal_and_never_overflows(compared):
    found = compared(same)
    searched = "NaN or infinity at 4, 16, 64 times the latents"
    assert found == Comparison((1, 2, 3, 5), None, 0.0, 0.0, None, True, 0.0, searched, 64.0, None)
    assert found.problems(LIMITS["fp32"]) == []


def test_an_error_of_one_row_is_found_by_every_measure(compared):
    found = compared(late)
    assert found.most == pytest.approx(0.01, rel=0.1)
    assert not found.equal_rows
    assert found.batch > 0
    assert "equal rows of a batch come out different" in found.problems(LIMITS["fp16"])


def profiles(*ranges, clip=4):
    return tuple({"b": Range.parse(text), "t": Range(clip, clip, clip)} for text in ranges)


def test_a_compiled_graph_is_tried_beside_every_optimum_at_every_maximum_and_in_parts(compared):
    plan = (*profiles("1:2:4", "5:8:16"), *profiles("1:6:7", clip=5))
    assert compared(same, plan).batches == (1, 2, 3, 4, 5, 9, 16, 32)


def test_batches_that_a_profile_has_to_pad_are_tried_too(compared):
    assert compared(same, profiles("4:4:4")).batches == (1, 2, 3, 4, 8)


def test_rows_that_ran_in_other_parts_need_not_be_equal_to_the_bit(compared):
    def parts(eps, feeds):
        eps[4:] *= np.float32(1 + 1e-6)  # as kernels for another shape round
        return eps

    found = compared(parts, profiles("1:2:4"))
    assert found.equal_rows
    assert 0 < found.batch < 1e-5
    assert not compared(parts, profiles("1:2:8")).equal_rows


def test_batches_before_the_one_that_memory_is_too_small_for_are_measured(compared):
    def small(eps, feeds):
        if len(eps) > 4:
            raise DeviceMemoryError("out of memory")
        return eps

    found = compared(small, profiles("1:2:16"))
    assert (found.batches, found.no_memory_at) == ((1, 2, 3), 5)
    assert found.problems(LIMITS["fp32"]) == ["out of memory at batch 5"]


def test_overflow_is_searched_for_beyond_ordinary_inputs(compared):
    found = compared(overflowing)
    assert (found.finite_to, found.overflows_at) == (4.0, 16.0)
    assert found.problems(LIMITS["fp16"]) == []


def test_nan_on_ordinary_inputs_is_a_problem_and_stays_valid_json(compared):
    found = compared(lambda eps, feeds: eps * np.float32(np.nan))
    assert "NaN or infinity on ordinary inputs" in found.problems(LIMITS["fp16"])
    assert any("mean error nan" in problem for problem in found.problems(LIMITS["fp16"]))
    assert json.loads(json.dumps(found.entry(), allow_nan=False))["mean"] == "nan"


class Pixels:
    """A decoder that rounds latents to pixels, and gives black ones above a magnitude."""

    inputs = (TensorSpec("latents", "float32", ("b", 3)),)
    outputs = (TensorSpec("frames", "uint8", ("b", 3)),)

    def __init__(self, limit=np.inf):
        self.limit = limit

    def run(self, feeds):
        latents = feeds["latents"]
        bright = np.clip(128 + 40 * latents, 0, 255).astype(np.uint8)
        return {"frames": np.where(np.abs(latents) < self.limit, bright, 0).astype(np.uint8)}


def test_a_decoder_that_overflows_shows_it_in_its_frames():
    rng = np.random.default_rng(1)
    feeds = {"latents": rng.standard_normal((3, 3)).astype(np.float32)}
    probe = SimpleNamespace(rows=lambda start, stop: {"latents": feeds["latents"][start:stop]})
    found = compare(Pixels(limit=20), Pixels(), probe)
    assert found.psnr == 999.0
    assert found.searched == "frames below 20 dB at 4, 16, 64 times the latents"
    assert found.overflows_at in (16.0, 64.0)
    assert compare(Pixels(), Pixels(), probe).overflows_at is None


def test_a_whole_bundle_is_compared_and_reported_by_graph(fixed_bundle):
    lines = []
    found = compare_bundle(fixed_bundle, "cpu", lines.append, options=SessionOptions(threads=1))
    assert list(found) == ["predict", "interpolate"]
    assert found["predict"]["mean"] == 0
    assert found["predict"]["against"] == "onnxruntime cpu, the same float32 weights"
    assert lines == [f"{name}: comparing cpu with the CPU" for name in found]
    check_report(found, fixed_bundle, "cpu")


def test_openvino_is_held_to_the_limits_of_what_it_computes_in(fixed_bundle):
    pytest.importorskip("openvino")
    options = SessionOptions(threads=1, precision="f32")
    found = compare_bundle(fixed_bundle, "openvino", lambda line: None, options=options)
    assert [entry["problems"] for entry in found.values()] == [[], []]
    assert [entry["batch"] for entry in found.values()] == [0, 0]


@pytest.mark.parametrize(
    ("session", "precision", "limits"),
    [
        (SimpleNamespace(precision="bf16"), "fp32", BF16),
        (SimpleNamespace(precision="f32"), "fp32", LIMITS["fp32"]),
        (SimpleNamespace(), "fp16", LIMITS["fp16"]),
    ],
)
def test_a_session_that_rounds_has_the_limits_of_that(session, precision, limits):
    assert limits_of(session, precision) == limits


@pytest.fixture
def broken(monkeypatch):
    """`predict` on tensorrt is off by a tenth, `interpolate` there cannot be opened."""

    def opened(bundle, name, backend, options=None):
        session = open_session(bundle, name, "cpu", SessionOptions(threads=1))
        if backend == "tensorrt":
            if name == "interpolate":
                raise SessionError("interpolate: cannot be opened")
            run = session.run
            session.run = lambda feeds: {"eps": run(feeds)["eps"] * np.float32(1.1)}
        return session

    monkeypatch.setattr("lvdm_export.verify.backends.open_session", opened)
    monkeypatch.setattr("lvdm_export.verify.backends.check_backend", lambda backend: None)


def test_numbers_outside_the_limits_are_kept_and_a_graph_that_fails_hides_no_other(
    fixed_bundle, broken
):
    found = compare_bundle(fixed_bundle, "tensorrt", lambda line: None)
    assert found["predict"]["mean"] == pytest.approx(0.1, rel=0.01)
    assert found["predict"]["problems"][0] == "mean error 0.1, expected at most 0.002"
    assert found["interpolate"] == {"problems": ["interpolate: cannot be opened"]}
    with pytest.raises(
        ExportError, match=r"on tensorrt: predict: mean error 0\.1.*interpolate: interpolate: can"
    ):
        check_report(found, fixed_bundle, "tensorrt")


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("tensorrt", "^tensorrt is not usable: .*pip install"),
        ("gpu", "got backend 'gpu', expected"),
    ],
)
def test_a_backend_that_runs_nothing_here_is_one_line_not_one_per_graph(
    fixed_bundle, monkeypatch, backend, message
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=message):
        compare_bundle(fixed_bundle, backend, lambda line: None)


def test_the_command_prints_all_numbers_before_it_fails(fixed_bundle, broken, capsys):
    from lvdm_export import cli

    code = cli.run(["verify", str(fixed_bundle.path), "--backend", "tensorrt", "-q"])
    told = capsys.readouterr()
    assert code == 1
    assert "predict: mean error 0.1, expected" in told.out
    assert "finite_to 64" in told.out
    assert "interpolate: interpolate: cannot be opened" in told.out
    assert told.err.startswith("lvdm-export: ")
    code = cli.run(["verify", str(fixed_bundle.path), "--backend", "tensorrt", "-q", "--json"])
    told = capsys.readouterr()
    assert code == 1
    assert "mean error 0.1" in json.loads(told.out)["predict"]["problems"][0]
    assert "mean error 0.1" in told.err


def test_an_fp16_bundle_is_held_to_its_fp32_export_or_says_that_it_was_not(fixed_bundle):
    graphs = {
        name: replace(g, precision="fp16") for name, g in fixed_bundle.manifest.graphs.items()
    }
    half = Bundle(fixed_bundle.path, replace(fixed_bundle.manifest, name="half", graphs=graphs))
    options = SessionOptions(threads=1)
    alone = compare_bundle(half, "cpu", lambda line: None, None, options)
    held = compare_bundle(half, "cpu", lambda line: None, fixed_bundle, options)
    assert alone["predict"]["against"].endswith("but with this bundle's own fp16 weights")
    assert held["predict"]["against"] == "onnxruntime cpu, float32 weights of tiny"
    with pytest.raises(OptionsError, match="its graph 'predict' is fp16; expected the --precision"):
        compare_bundle(fixed_bundle, "cpu", lambda line: None, half)
