"""Which backend is taken for a graph, what is said of it, and what is refused."""

import logging

import pytest

from lvdm_engines import opening
from lvdm_engines.backends.backend import Backend, SessionOptions
from lvdm_engines.backends.ort import cpu
from lvdm_engines.errors import BackendError, BundleError, OptionsError
from lvdm_engines.opening import backend_report, open_session, open_sessions

OPTIONS = SessionOptions(threads=1)


def test_a_precision_that_a_processor_has_not_is_refused(make_bundle):
    with pytest.raises(BackendError, match="got precision bf16, but ONNX Runtime computes in f32"):
        open_session(make_bundle(), "predict", "cpu", SessionOptions(precision="bf16"))


def test_auto_takes_the_first_usable_backend_and_says_why(make_bundle, monkeypatch, caplog):
    refuse = Backend(lambda: "no device; buy one", None)
    real = opening.load_backend
    monkeypatch.setattr(
        "lvdm_engines.opening.load_backend", lambda n: real(n) if n == "cpu" else refuse
    )
    bundle = make_bundle()
    with caplog.at_level(logging.INFO), open_session(bundle, "predict", options=OPTIONS):
        pass
    assert (
        "predict runs on cpu (not tensorrt, tensorrt-rtx, cuda, openvino: no device)" in caplog.text
    )


def test_a_named_backend_that_cannot_run_is_an_error_with_the_fix(make_bundle, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"tensorrt-rtx is not usable: .*pip install 'lvdm-rt\["):
        open_session(make_bundle(), "predict", "tensorrt-rtx")


def test_an_unknown_backend_lists_the_known(make_bundle):
    with pytest.raises(BackendError, match="'gpu', expected auto or one of tensorrt, tensorrt-rtx"):
        open_session(make_bundle(), "predict", "gpu")


def test_an_unknown_graph_lists_what_the_bundle_has(make_bundle):
    with pytest.raises(BundleError, match="no graph 'short', the bundle has: predict, interpolate"):
        open_session(make_bundle(), "short")


def test_every_backend_reports_whether_this_machine_can_run_it():
    report = backend_report()
    assert list(report) == ["tensorrt", "tensorrt-rtx", "cuda", "openvino", "cpu"]
    assert report["cpu"] is None
    assert all(why is None or (why and "\n" not in why) for why in report.values())


def test_graphs_that_are_one_file_share_one_session_and_one_line(make_bundle, caplog):
    with caplog.at_level(logging.INFO):
        sessions = open_sessions(make_bundle(), ["predict", "interpolate"], "cpu", OPTIONS)
    assert sessions["predict"] is sessions["interpolate"]
    sessions["predict"].close()
    assert [record.getMessage() for record in caplog.records] == ["all graphs run on cpu"]


def test_sessions_opened_before_a_failure_are_closed(make_bundle, monkeypatch):
    closed = []
    monkeypatch.setattr(cpu.OrtSession, "close", lambda self: closed.append(self.name))
    with pytest.raises(BundleError):
        open_sessions(make_bundle(), ["predict", "decoder"], "cpu", OPTIONS)
    assert closed == ["predict"]


@pytest.mark.parametrize(
    "wrong",
    [{"threads": n} for n in (0, 1.5, "2", True, 10**30)]
    + [{"device": n} for n in (-1, "0", None)]
    + [{"precision": "fp8"}],
    ids=str,
)
def test_options_that_no_engine_takes_are_refused_at_once(wrong):
    with pytest.raises(OptionsError, match=f"^got {next(iter(wrong))} .*, expected "):
        SessionOptions(**wrong)
