"""Opening a plan: what is checked before anything of it is used."""

import logging
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from toy_gpu import HERE, SMALL, FakeSettings, check_run, feeds_of

from lvdm_engines.backends.backend import Profiled, Timed
from lvdm_engines.backends.trt import opening
from lvdm_engines.backends.trt.store import find_plan
from lvdm_engines.errors import BackendError, BundleError, DeviceMemoryError
from lvdm_engines.manifest import TensorSpec


def test_a_plan_opens_as_a_session_that_computes(source, make_plan, open_plan, runtimes):
    plan = make_plan()
    assert find_plan(source, HERE) == plan
    with open_plan(plan) as session:
        check_run(session, feeds_of(3))
        assert session.backend == "tensorrt"
        assert isinstance(session, Timed)
        assert isinstance(session, Profiled)
    assert runtimes[0].opened == [b"the plan"]


def test_two_sessions_of_a_gpu_share_their_activations(make_plan, open_plan, gpu):
    plan = make_plan()
    with open_plan(plan) as one, open_plan(plan) as two:
        one.run(feeds_of(2))
        two.run(feeds_of(2))
        held = [block.nbytes for block in gpu.blocks.values()]
    assert held.count(1000) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("engines/*/denoiser.plan", "got sha256"),
        ("denoiser.onnx", "the file is damaged or was replaced"),
        (None, "is executable code that you have not built"),
    ],
    ids=["a damaged plan", "beside another graph", "with its own sidecar"],
)
def test_what_was_not_built_here_of_this_graph_never_reaches_the_library(
    source, make_plan, open_plan, runtimes, monkeypatch, tmp_path, change, told
):
    plan = make_plan()
    if change is None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "somebody else"))
    else:
        next(source.folder.glob(change)).write_bytes(b"another!")
    with pytest.raises(BundleError, match=told):
        open_plan(plan)
    assert all(runtime.opened == [] for runtime in runtimes)


def test_a_plan_that_the_library_refuses_says_why_and_how_to_rebuild(
    make_plan, open_plan, fake_library, engine
):
    engine.error = "broken"
    fake_library.errors.append("Serialization assertion stdVersionRead == kSTD_VERSION failed")
    # the messages of an earlier failure are not this one's
    with pytest.raises(BackendError, match=r"cannot be opened: .*build again: lvdm-export b"):
        open_plan(make_plan())


def test_an_engine_with_other_tensors_than_declared_is_refused(make_plan, open_plan, engine):
    engine.outputs = (TensorSpec("eps", "float16", ("b", 2, "t", 2, 2)),)
    with pytest.raises(BundleError, match=r"output eps: got float16 .*build again: lvdm-export"):
        open_plan(make_plan())


def test_a_plan_of_another_version_needs_that_versions_lean_runtime(
    make_plan, open_plan, runtimes, monkeypatch, tmp_path
):
    plan = make_plan(version="11.0.0.1", options=replace(SMALL, version_compatible=True))
    with pytest.raises(BackendError, match=r"pip install tensorrt-lean==11\.0\.0\.1"):
        open_plan(plan)
    (tmp_path / "libnvinfer_lean.so.11").touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    open_plan(plan).close()
    assert runtimes[-1].lean == str(tmp_path / "libnvinfer_lean.so.11")


@pytest.fixture
def portable(fake_library, runtimes):
    """The fake library as TensorRT-RTX: it finishes plans itself and judges them first."""
    object.__setattr__(fake_library, "name", "tensorrt-rtx")
    trt = fake_library.trt
    trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    trt.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    trt.EngineValidity = SimpleNamespace(INVALID="invalid")
    names = {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4}
    bits = {**names, "INSUFFICIENT_GPU_MEMORY": 16}
    trt.EngineInvalidityDiagnostics = SimpleNamespace(__members__=bits)
    judged = SimpleNamespace(validity="valid", reasons=0, said=[])

    def judge(self, data):
        fake_library.errors.extend(judged.said)
        return judged.validity, judged.reasons

    trt.Runtime.get_engine_validity = judge
    return judged


def test_rtx_records_runs_itself_and_keeps_its_kernels_beside_the_plan(
    make_plan, open_plan, portable, gpu, engine
):
    plan = make_plan()
    feeds = feeds_of(3)
    for known in (None, b"kernels"):
        with open_plan(plan) as session:
            for _ in range(3):
                check_run(session, feeds)
        settings = engine.settings
        assert settings.cuda_graph_strategy == "whole"
        assert settings.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert getattr(settings, "known", None) == known
    assert gpu.count("record") == 0


def test_a_library_that_has_no_kernels_to_keep_closes_all_the_same(
    make_plan, open_plan, portable, engine, monkeypatch
):
    nothing = SimpleNamespace(deserialize=lambda data: False, serialize=lambda: None)
    monkeypatch.setattr(FakeSettings, "create_runtime_cache", lambda _: nothing)
    plan = make_plan()
    open_plan(plan).close()
    assert list(plan.path.parent.glob("*.kernels*")) == []


@pytest.mark.parametrize(
    ("reasons", "said", "told"),
    [
        (2, [], r"\(UNSUPPORTED_CC\): tensorrt-rtx gives no reason; build again with --target of"),
        (3, ["built by 1.6"], r"\(VERSION_MISMATCH, UNSUPPORTED_CC\): built by 1.6; build again"),
        (4, ["CUDA 12.2"], r"\(OLD_CUDA_DRIVER\): CUDA 12.2; update the NVIDIA driver$"),
        (16, [], r"\(INSUFFICIENT_GPU_MEMORY\); free memory"),
        (256, [], r"\(reasons 256\): tensorrt-rtx gives no reason; update the NVIDIA driver$"),
    ],
)
def test_a_plan_that_rtx_calls_invalid_here_is_refused_before_it_is_opened(
    make_plan, open_plan, portable, runtimes, reasons, said, told
):
    portable.validity, portable.reasons, portable.said = "invalid", reasons, said
    kind = DeviceMemoryError if reasons == 16 else BackendError
    with pytest.raises(kind, match=r"calls it invalid on this GPU " + told):
        open_plan(make_plan())
    assert runtimes[-1].opened == []


def test_compiled_kernels_are_kept_whole_by_their_owner_or_not_read_back(tmp_path, monkeypatch):
    file = tmp_path / "denoiser.kernels"
    opening._write_cache(file, b"kernels")
    assert opening._read_cache(file) == b"kernels"
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path / "somebody else"))
        assert opening._read_cache(file) is None
    file.write_bytes(file.read_bytes()[:-1])
    assert opening._read_cache(file) is None
    assert opening._read_cache(tmp_path / "none") is None
    assert [path.name for path in tmp_path.iterdir()] == ["denoiser.kernels"]


def test_a_kernel_cache_that_cannot_be_written_is_only_noted(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        opening._write_cache(tmp_path / "no" / "such.kernels", b"kernels")
    assert "not kept" in caplog.text
