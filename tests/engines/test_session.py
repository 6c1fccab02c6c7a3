import threading
import time

import numpy as np
import onnxruntime
import pytest
import toy
from msgspec.structs import replace
from onnx import helper, numpy_helper

from lvdm_engines import opening
from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.backends.ort.cuda import BoundSession
from lvdm_engines.bundle import Bundle, GraphSource, file_sha256
from lvdm_engines.errors import BundleError, DeviceMemoryError, SessionError
from lvdm_engines.manifest import GraphFacts, TensorSpec
from lvdm_engines.opening import open_session
from lvdm_engines.session import Cancellable, check_feeds

OPTIONS = SessionOptions(threads=1)


@pytest.fixture(params=["cpu", "openvino"])
def backend(request):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return request.param


@pytest.fixture(params=["cpu", "openvino", "bound"])
def session(request, make_bundle):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    if request.param == "bound":  # as for CUDA: a GPU has other addresses and the same calls
        source, native = map(request.getfixturevalue, ("source", "native"))
        opened = BoundSession(source, onnxruntime, native, ("cpu", 0))
    else:
        opened = open_session(make_bundle(), "predict", request.param, OPTIONS)
    with opened:
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


def test_a_session_computes_what_the_graph_says(session, feeds):
    np.testing.assert_array_equal(session.run(feeds)["eps"], toy.eps(feeds))


def test_batch_and_length_may_change_from_run_to_run(session, feeds):
    session.run(feeds)
    assert session.run(toy.feeds(3, 5))["eps"].shape == (3, 2, 5, 2, 2)


def test_weights_may_lie_in_a_file_of_their_own(make_bundle, feeds, backend):
    bundle = make_bundle(external=True)
    assert (bundle.path / "denoiser.onnx.data").is_file()
    with open_session(bundle, "predict", backend, OPTIONS) as session:
        assert session.backend == backend
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
    inputs = [TensorSpec("x", "float32", ("b", 1, 1))]
    session = open_graph(nodes, inputs, [TensorSpec("y", "float32", ("b", *shape))], constants)
    with pytest.raises(DeviceMemoryError, match="lower the batch size"):
        session.run({"x": np.zeros((1, 1, 1), np.float32)})


@pytest.fixture
def slow(open_graph):
    """A graph of many products, each of which takes some time, and its feeds."""
    size, count = 400, 60
    nodes = []
    for i in range(count):
        nodes.append(helper.make_node("MatMul", ["x" if i == 0 else f"h{i}", "x"], [f"p{i}"]))
        nodes.append(helper.make_node("Softmax", [f"p{i}"], [f"h{i + 1}"]))
    specs = [TensorSpec(name, "float32", (size, size)) for name in ("x", f"h{count}")]
    with open_graph(nodes, specs[:1], specs[1:]) as session:
        feeds = {"x": np.eye(size, dtype=np.float32)}
        session.run(feeds)  # compiles
        yield session, feeds


def test_the_interpreter_goes_on_while_a_session_runs(slow):
    session, feeds = slow
    runner = threading.Thread(target=session.run, args=(feeds,))
    runner.start()
    steps = 0
    while runner.is_alive():
        steps += 1
        time.sleep(0)
    runner.join()
    assert steps > 10  # a run that held the lock would let this thread in once or twice


def test_a_run_ends_early_when_its_thread_is_named(slow):
    session, feeds = slow
    assert isinstance(session, Cancellable)
    started = time.perf_counter()
    session.run(feeds)
    whole = time.perf_counter() - started
    thread = threading.get_ident()

    def cancel():
        time.sleep(whole / 10)
        session.cancel(thread + 1)  # another thread's: nothing happens
        session.cancel(thread)

    other = threading.Thread(target=cancel)
    other.start()
    with pytest.raises(SessionError, match=r"g: cannot run: "):
        session.run(feeds)
    other.join()
    session.cancel(thread)  # nothing runs: nothing happens
    session.run(feeds)


def test_a_graph_that_is_not_what_the_manifest_declares_is_refused(make_bundle, backend):
    bundle = make_bundle()
    declared = (TensorSpec("eps", "float16", toy.LATENTS),)
    facts = replace(bundle.manifest.graphs["predict"], outputs=declared)
    with pytest.raises(BundleError, match=r"eps: got float32 \(., 2, ., 2, 2\), expected float16"):
        opening.load_backend(backend).open(GraphSource("predict", facts, bundle.path), OPTIONS)


@pytest.mark.parametrize("file", ["denoiser.onnx", "denoiser.onnx.data"])
def test_a_damaged_graph_is_refused_before_it_is_opened(make_bundle, backend, file):
    bundle = make_bundle(external=True)
    data = bytearray((bundle.path / file).read_bytes())
    data[-1] ^= 1
    (bundle.path / file).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{file}: got sha256 .*, expected .*export the bundle"):
        open_session(bundle, "predict", backend, OPTIONS)


def test_a_file_that_is_no_graph_is_one_line(make_bundle, backend):
    bundle = make_bundle()
    file = bundle.path / "denoiser.onnx"
    file.write_bytes(b"not a graph")
    facts = replace(bundle.manifest.graphs["predict"], sha256=file_sha256(file))
    broken = Bundle(bundle.path, replace(bundle.manifest, graphs={"predict": facts}))
    with pytest.raises(BundleError, match=r"denoiser\.onnx: is no ONNX file \(.*; export"):
        open_session(broken, "predict", backend, OPTIONS)
