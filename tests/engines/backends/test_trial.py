import logging
import re
import time
from unittest.mock import Mock

import pytest
import toy

from lvdm_engines import opening
from lvdm_engines.backends import trial
from lvdm_engines.backends.backend import Backend, SessionOptions
from lvdm_engines.errors import BackendError, SessionError
from lvdm_engines.opening import open_session, open_sessions


class Fake:
    """A session that takes some time for a run; counts how often it was opened and run."""

    def __init__(self, backend, seconds):
        self.backend, self.seconds = backend, seconds
        self.inputs, self.outputs = toy.INPUTS, toy.OUTPUTS
        self.opened, self.shapes = 0, []
        self.error = None

    def open(self):
        self.opened += 1
        return self

    def run(self, feeds):
        if self.error is not None:
            raise self.error
        self.shapes.append(feeds["latents"].shape)
        time.sleep(self.seconds)
        return {"eps": feeds["latents"]}

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def engines(monkeypatch, tmp_path):
    """Machines without a GPU whose two engines take some time each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(trial, "_known", {})
    fakes = {"openvino": Fake("openvino", 0.001), "cpu": Fake("cpu", 0.004)}
    absent = Backend(lambda: "not here; buy one", None)
    found = {name: Backend(lambda: None, lambda s, o, f=f: f.open) for name, f in fakes.items()}
    monkeypatch.setattr(opening, "load_backend", lambda name: found.get(name, absent))
    return fakes


NO_BF16 = Mock(side_effect=BackendError("no bf16"))
BROKEN = SessionError("predict: cannot run: no such operator")


@pytest.mark.parametrize(
    ("seconds", "error", "taken", "told"),
    [
        (0.001, None, "openvino", r"predict runs on openvino \(.* ms a run against"),
        (0.004, None, "cpu", "not openvino: .* ms a run against"),
        (0.001, BROKEN, "cpu", f"not openvino: {BROKEN}"),
    ],
    ids=["faster", "not worth compiling", "cannot run"],
)
def test_auto_takes_what_a_trial_finds_faster_and_says_so(
    engines, make_bundle, caplog, seconds, error, taken, told
):
    engines["openvino"].seconds, engines["openvino"].error = seconds, error
    with caplog.at_level(logging.INFO):
        assert open_session(make_bundle(), "predict") is engines[taken]
    assert re.search(told, caplog.text)


def test_both_run_by_turns_on_four_clips_of_the_longest_graph_in_the_file(engines, make_bundle):
    open_session(make_bundle(), "predict")
    assert set(engines["openvino"].shapes) == {(4, 2, 5, 2, 2)}
    assert engines["openvino"].shapes == engines["cpu"].shapes


def test_a_trial_is_made_once_for_a_file_and_remembered(engines, make_bundle, monkeypatch):
    bundle = make_bundle()
    open_sessions(bundle, ["predict", "interpolate"])
    assert [f.opened for f in engines.values()] == [2, 1]  # both for the trial, then the winner
    monkeypatch.setattr(trial, "_known", {})  # another process
    engines["openvino"].seconds = 1
    assert open_session(bundle, "interpolate") is engines["openvino"]
    assert engines["cpu"].opened == 1


def test_where_nothing_can_be_kept_a_trial_is_still_made_only_once(
    engines, make_bundle, monkeypatch, tmp_path
):
    (tmp_path / "cache").write_text("a file where the folder should be")
    open_sessions(make_bundle(), ["predict", "interpolate"])
    assert engines["cpu"].opened == 1


@pytest.mark.parametrize("change", [{"threads": 1}, {"precision": "f32"}])
def test_other_options_are_another_trial(engines, make_bundle, change):
    bundle = make_bundle()
    open_session(bundle, "predict")
    open_session(bundle, "predict", options=SessionOptions(**change))
    assert engines["cpu"].opened == 2


def test_a_damaged_answer_is_asked_for_again(engines, make_bundle, monkeypatch, tmp_path):
    bundle = make_bundle()
    open_session(bundle, "predict")
    (kept,) = (tmp_path / "cache/lvdm-rt/trials").iterdir()
    kept.write_bytes(kept.read_bytes()[:-3])
    monkeypatch.setattr(trial, "_known", {})
    open_session(bundle, "predict")
    assert engines["cpu"].opened == 2


@pytest.mark.parametrize(
    ("other", "options"),
    [
        (Backend(lambda: "no ONNX Runtime is installed", None), SessionOptions()),
        (Backend(lambda: None, NO_BF16), SessionOptions(precision="bf16")),
    ],
    ids=["is there", "has the precision"],
)
def test_there_is_no_trial_where_only_one_engine_will_do(
    engines, make_bundle, monkeypatch, other, options
):
    real = opening.load_backend
    monkeypatch.setattr(opening, "load_backend", lambda n: other if n == "cpu" else real(n))
    assert open_session(make_bundle(), "predict", options=options) is engines["openvino"]
    assert engines["openvino"].shapes == []


def test_there_is_no_trial_of_a_backend_that_is_named(engines, make_bundle):
    assert open_session(make_bundle(), "predict", "openvino") is engines["openvino"]
    assert engines["cpu"].opened == 0


def test_of_a_costly_denoiser_one_clip_is_tried(make_bundle):
    bundle = make_bundle()
    assert trial.usual_shapes(bundle, "predict")["mask"] == (4, 5)
    costly = toy.graph_facts(gflop=90.0)
    graphs = {"predict": costly, "interpolate": costly}
    large = type(bundle)(bundle.path, toy.manifest(graphs=graphs))
    assert trial.usual_shapes(large, "predict")["mask"] == (1, 5)
