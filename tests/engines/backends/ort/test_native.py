import os
import sys
from types import ModuleType

import onnx
import pytest
import toy
from toy_files import edited

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.backends.ort import native
from lvdm_engines.backends.ort.cpu import CPU
from lvdm_engines.backends.ort.cuda import CUDA
from lvdm_engines.bundle import file_sha256, load_bundle
from lvdm_engines.errors import BackendError, SessionError
from lvdm_engines.opening import open_session


@pytest.mark.parametrize(("backend", "extra"), [(CPU, "cpu"), (CUDA, "cuda")])
def test_without_onnx_runtime_the_extra_to_install_is_named(backend, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it fails
    told = backend.unusable()
    assert told == f"no ONNX Runtime is installed; pip install 'lvdm-rt[{extra}]'"


def test_without_any_backend_the_shortest_way_is_named(monkeypatch):
    for library in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(BackendError) as found:
        open_session(load_bundle("sky-tiny"), "decoder")
    assert str(found.value) == (
        "no ONNX Runtime is installed; pip install 'lvdm-rt[cpu]'; "
        "lvdm-rt doctor tells of the other backends"
    )


def test_what_is_left_of_two_wheels_when_one_was_removed_is_told_from_a_whole_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    assert CPU.unusable() == (
        "onnxruntime is incomplete; pip uninstall -y onnxruntime onnxruntime-gpu && "
        "pip install 'lvdm-rt[cpu]'"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no text")
def test_a_path_that_is_no_text_is_refused_in_one_line(tmp_path):
    bundle = toy.write_bundle(tmp_path / os.fsdecode(b"caf\xff"))
    with pytest.raises(SessionError, match=r"is not UTF-8; move the bundle") as found:
        open_session(bundle, "predict", "cpu")
    assert str(found.value).isprintable()


def test_words_of_the_engine_that_are_no_text_are_one_line(tmp_path):
    bundle = toy.write_bundle(tmp_path / "toy").path
    graph = bundle / load_bundle(bundle).manifest.graphs["predict"].file
    data = graph.read_bytes()
    name = onnx.load(graph).graph.node[0].op_type.encode()
    graph.write_bytes(data.replace(name, b"\xf3" + name[1:]))
    with edited(bundle / "manifest.json") as manifest:
        manifest["graphs"]["predict"]["sha256"] = file_sha256(graph)
    with pytest.raises(SessionError, match=r"^predict: cannot open: ") as caught:
        open_session(load_bundle(bundle), "predict", "cpu")
    assert str(caught.value).isprintable()


def test_an_error_is_raised_and_not_printed_as_well(capfd):
    axes = onnx.TensorProto(name="axes", data_type=onnx.TensorProto.INT64, dims=[2**63 - 1])
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    node = onnx.helper.make_node("ReduceMean", ["x", "axes"], ["y"])
    graph = onnx.helper.make_graph([node], "damaged", [x], [y], [axes])
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    ort = native.load()
    settings = native.session_options(ort, SessionOptions())
    with pytest.raises(native.native_errors()):
        ort.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])
    assert capfd.readouterr().err == ""
