import logging
import threading
import time

import numpy as np
import pytest
import toy
from msgspec.structs import replace
from onnx import helper, numpy_helper

from lvdm_engines import opening
from lvdm_engines.backends.backend import Backend, SessionOptions
from lvdm_engines.backends.ort import cpu
from lvdm_engines.bundle import Bundle, GraphSource, file_sha256
from lvdm_engines.errors import (
    BackendError,
    BundleError,
    DeviceMemoryError,
    OptionsError,
    SessionError,
)
from lvdm_engines.manifest import GraphFacts, TensorSpec
from lvdm_engines.opening import backend_report, open_session, open_sessions
from lvdm_engines.session import check_feeds

OPTIONS = SessionOptions(threads=1)


@pytest.fixture(params=["cpu", "openvino"])
def backend(request):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return request.param


@pytest.fixture
def session(make_bundle, backend):
    with open_session(make_bundle(), "predict", backend, OPTIONS) as opened:
        yield opened


@pytest.fixture
def open_graph(tmp_path, backend):
    """Open a graph that has nothing to do with diffusion, past the manifest's checks."""

    def opened(nodes, inputs, outputs, constants=()):
        toy.write_graph(tmp_path / "g.onnx", nodes, inputs, outputs, constants)
        sha256 = file_sha256(tmp_path / "g.onnx")
        facts = GraphFacts("g.onnx", sha256, "fp32", tuple(inputs), tuple(outputs))
        return opening.load_backend(backend).open(GraphSource("g", facts, tmp_path), OPTIONS)

    return opened


def test_a_session_computes_what_the_graph_says(session, feeds, backend):
    assert session.backend == backend
    np.testing.assert_array_equal(session.run(feeds)["eps"], toy.eps(feeds))


def test_batch_and_length_may_change_from_run_to_run(session, feeds):
    session.run(feeds)
    assert session.run(toy.feeds(3, 5))["eps"].shape == (3, 2, 5, 2, 2)


def test_weights_may_lie_in_a_file_of_their_own(make_bundle, feeds, backend):
    bundle = make_bundle(external=True)
    assert (bundle.path / "denoiser.onnx.data").is_file()
    with open_session(bundle, "predict", backend, OPTIONS) as session:
        assert session.run(feeds)["eps"][1].max() == 0.25


def test_outputs_belong_to_the_caller(session, feeds):
    first = session.run(feeds)["eps"]
    kept = first.copy()
    second = session.run({**feeds, "latents": feeds["latents"] + 1})["eps"]
    np.testing.assert_array_equal(first, kept)
    assert not np.shares_memory(first, second)
    assert first.flags.writeable


def test_outputs_that_are_inputs_or_weights_are_still_the_callers(open_graph):
    spec = TensorSpec("x", "float32", ("b",))
    outputs = [TensorSpec("same", "float32", ("b",)), TensorSpec("weight", "float32", (2,))]
    constants = [numpy_helper.from_array(np.ones(2, np.float32), "weight")]
    nodes = [helper.make_node("Identity", ["x"], ["same"])]
    with open_graph(nodes, [spec], outputs, constants) as session:
        x = np.zeros(3, np.float32)
        for _ in range(2):
            got = session.run({"x": x})
            np.testing.assert_array_equal(got["weight"], [1, 1])
            np.testing.assert_array_equal(got["same"], [0, 0, 0])
            got["weight"][:] = 7
            got["same"][:] = 7


def test_feeds_are_not_modified_and_need_not_be_contiguous(session, feeds):
    wide = np.zeros((2, 2, 4, 2, 4), np.float32)
    wide[..., ::2] = feeds["latents"]
    expected = session.run(feeds)["eps"]
    np.testing.assert_array_equal(
        session.run({**feeds, "latents": wide[..., ::2]})["eps"], expected
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": None}, "missing: mask, unknown: none"),
        ({"masks": 1}, "missing: none, unknown: masks"),
        ({"mask": [[1.0]]}, "input mask: got list, expected an array float32 (b, t)"),
        ({"mask": np.ones((2, 4))}, "input mask: got float64 (2, 4), expected float32 (b, t)"),
        ({"mask": np.ones((2, 4, 1), "f4")}, "got float32 (2, 4, 1), expected float32 (b, t)"),
        ({"mask": np.ones((2, 3), "f4")}, "with t = 4 as in latents"),
        ({"timestep": np.zeros(3, np.int64)}, "got int64 (3,), expected int64 (b) with b = 2"),
        ({"latents": np.ones((2, 3, 4, 2, 2), "f4")}, "expected float32 (b, 2, t, 2, 2)"),
        ({"latents": np.ones((0, 2, 4, 2, 2), "f4")}, "got float32 (0, 2, 4, 2, 2)"),
        ({"latents": np.ones((2, 2, 4, 2, 2), ">f4")}, "input latents: got >f4"),
    ],
)
def test_wrong_feeds_are_named_with_what_was_expected(session, feeds, change, message):
    changed = {name: array for name, array in {**feeds, **change}.items() if array is not None}
    with pytest.raises(SessionError) as caught:
        session.run(changed)
    assert message in str(caught.value)
    assert str(caught.value).startswith("predict: ")


def test_feeds_can_be_checked_without_a_session():
    check_feeds([TensorSpec("tokens", "int64", ("b", 77))], {"tokens": np.zeros((1, 77), int)})


def test_a_closed_session_says_so(session, feeds):
    session.close()
    session.close()
    with pytest.raises(SessionError, match="the session is closed"):
        session.run(feeds)


@pytest.mark.parametrize("backend", ["cpu"])  # the other one takes any index
def test_a_failing_run_is_one_line(open_graph):
    specs = [TensorSpec("x", "float32", ("b",)), TensorSpec("i", "int64", ("n",))]
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"])]
    session = open_graph(nodes, specs, [TensorSpec("y", "float32", ("n",))])
    with pytest.raises(SessionError, match=r"^g: cannot run: .*out of") as caught:
        session.run({"x": np.zeros(2, np.float32), "i": np.array([9])})
    assert "ONNXRuntimeError" not in str(caught.value)


def test_running_out_of_memory_is_an_error_of_its_own(open_graph):
    shape = (1 << 20, 1 << 20)
    constants = [numpy_helper.from_array(np.array([1, *shape]), "shape")]
    nodes = [helper.make_node("Expand", ["x", "shape"], ["y"])]
    inputs, outputs = (
        [TensorSpec("x", "float32", ("b", 1, 1))],
        [TensorSpec("y", "float32", ("b", *shape))],
    )
    session = open_graph(nodes, inputs, outputs, constants)
    with pytest.raises(DeviceMemoryError, match="lower the batch size"):
        session.run({"x": np.zeros((1, 1, 1), np.float32)})


def test_the_interpreter_goes_on_while_a_session_runs(open_graph):
    size = 700
    specs = [TensorSpec("x", "float32", (size, size))]
    nodes = [
        helper.make_node("MatMul", ["x" if i == 0 else f"h{i}", "x"], [f"h{i + 1}"])
        for i in range(8)
    ]
    outputs = [TensorSpec("h8", "float32", (size, size))]
    with open_graph(nodes, specs, outputs) as session:
        x = np.eye(size, dtype=np.float32)
        runner = threading.Thread(target=session.run, args=({"x": x},))
        runner.start()
        steps = 0
        while runner.is_alive():
            steps += 1
            time.sleep(0)
        runner.join()
    assert steps > 10  # a run that held the lock would let this thread in once or twice


def test_a_graph_that_is_not_what_the_manifest_declares_is_refused(make_bundle, backend):
    bundle = make_bundle()
    declared = (TensorSpec("eps", "float16", toy.LATENTS),)
    facts = replace(bundle.manifest.graphs["predict"], outputs=declared)
    with pytest.raises(BundleError, match=r"eps: got float32 \(., 2, ., 2, 2\), expected float16"):
        opening.load_backend(backend).open(GraphSource("predict", facts, bundle.path), OPTIONS)


def test_a_damaged_graph_is_refused_before_it_is_opened(make_bundle, backend):
    bundle = make_bundle()
    data = bytearray((bundle.path / "denoiser.onnx").read_bytes())
    data[-1] ^= 1
    (bundle.path / "denoiser.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"got sha256 .*, expected .*export the bundle again"):
        open_session(bundle, "predict", backend, OPTIONS)


def test_damaged_external_data_is_refused(make_bundle, backend):
    bundle = make_bundle(external=True)
    (bundle.path / "denoiser.onnx.data").write_bytes(b"0" * 100)
    with pytest.raises(BundleError, match=r"denoiser\.onnx\.data: got sha256"):
        open_session(bundle, "predict", backend, OPTIONS)


def test_a_file_that_is_no_graph_is_one_line(make_bundle, backend):
    bundle = make_bundle()
    file = bundle.path / "denoiser.onnx"
    file.write_bytes(b"not a graph")
    facts = replace(bundle.manifest.graphs["predict"], sha256=file_sha256(file))
    broken = Bundle(bundle.path, replace(bundle.manifest, graphs={"predict": facts}))
    with pytest.raises(BundleError, match=r"denoiser\.onnx: is no ONNX file \(.*; export"):
        open_session(broken, "predict", backend, OPTIONS)


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
