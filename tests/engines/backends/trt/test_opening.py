"""Opening a plan: what is checked before anything of it is used."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lvdm_engines.backends.backend import Profiled, Timed
from lvdm_engines.backends.gpu.driver import Gpu
from lvdm_engines.backends.plan_facts import PlanOptions, Range
from lvdm_engines.backends.trt import library as libraries
from lvdm_engines.backends.trt import opening as trt
from lvdm_engines.backends.trt.store import find_plan
from lvdm_engines.errors import BackendError, BundleError, DeviceMemoryError
from lvdm_engines.manifest import TensorSpec


def test_a_plan_opens_as_a_session_that_computes(
    source, make_plan, fake_library, gpu, runtimes, feeds_of, expected, here
):
    plan = make_plan()
    assert find_plan(source, here) == plan
    with trt.open_session(source, plan, fake_library, gpu) as session:
        feeds = {**feeds_of(3), "noise_level": np.full(3, -1)}
        np.testing.assert_array_equal(session.run(feeds)["eps"], expected(feeds))
        assert session.backend == "tensorrt"
        assert isinstance(session, Timed)
        assert isinstance(session, Profiled)
    assert runtimes[0].opened == [b"the plan"]


def test_two_sessions_of_a_gpu_share_their_activations(
    source, make_plan, fake_library, gpu, runtimes, feeds_of
):
    plan = make_plan()
    with (
        trt.open_session(source, plan, fake_library, gpu) as one,
        trt.open_session(source, plan, fake_library, gpu) as two,
    ):
        feeds = {**feeds_of(2), "noise_level": np.full(2, -1)}
        one.run(feeds)
        two.run(feeds)
        held = [block.nbytes for block in gpu.blocks.values()]
    assert held.count(1000) == 1


def test_a_damaged_plan_never_reaches_the_library(source, make_plan, fake_library, gpu, runtimes):
    plan = make_plan()
    plan.path.write_bytes(b"another!")
    with pytest.raises(BundleError, match="got sha256"):
        trt.open_session(source, plan, fake_library, gpu)
    assert all(runtime.opened == [] for runtime in runtimes)


def test_a_plan_beside_a_replaced_onnx_file_is_refused(
    source, make_plan, fake_library, gpu, runtimes
):
    plan = make_plan()
    (source.folder / source.facts.file).write_bytes(b"changed")
    with pytest.raises(BundleError, match="the file is damaged or was replaced"):
        trt.open_session(source, plan, fake_library, gpu)


def test_a_plan_that_the_library_refuses_says_why_and_how_to_rebuild(
    source, make_plan, fake_library, gpu, engine, runtimes
):
    plan = make_plan()
    engine.error = "broken"
    fake_library.errors.append("Serialization assertion stdVersionRead == kSTD_VERSION failed")
    # the messages of an earlier failure are not this one's
    with pytest.raises(BackendError, match=r"cannot be opened: .*build again: lvdm-export b"):
        trt.open_session(source, plan, fake_library, gpu)


def test_an_engine_with_other_tensors_than_declared_is_refused(
    source, make_plan, fake_library, gpu, engine, runtimes
):
    plan = make_plan()
    engine.outputs = (TensorSpec("eps", "float16", ("b", 2, "t", 2, 2)),)
    with pytest.raises(BundleError, match=r"output eps: got float16 .*build again: lvdm-export"):
        trt.open_session(source, plan, fake_library, gpu)


def test_a_plan_of_another_version_needs_that_versions_lean_runtime(
    source, make_plan, fake_library, gpu, runtimes, monkeypatch, tmp_path
):
    plan = make_plan(
        version="11.0.0.1", options=PlanOptions(batch=Range(1, 2, 4), version_compatible=True)
    )
    with pytest.raises(BackendError, match=r"pip install tensorrt-lean==11\.0\.0\.1"):
        trt.open_session(source, plan, fake_library, gpu)
    (tmp_path / "libnvinfer_lean.so.11").touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    trt.open_session(source, plan, fake_library, gpu).close()
    assert runtimes[-1].lean == str(tmp_path / "libnvinfer_lean.so.11")


@pytest.fixture
def portable(fake_library, runtimes):
    """The fake library as TensorRT-RTX: it finishes plans itself and judges them first."""
    object.__setattr__(fake_library, "name", "tensorrt-rtx")
    trt = fake_library.trt
    trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    trt.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    trt.EngineValidity = SimpleNamespace(INVALID="invalid")
    bits = {
        "VERSION_MISMATCH": 1,
        "UNSUPPORTED_CC": 2,
        "OLD_CUDA_DRIVER": 4,
        "INSUFFICIENT_GPU_MEMORY": 16,
    }
    trt.EngineInvalidityDiagnostics = SimpleNamespace(__members__=bits)
    judged = SimpleNamespace(validity="valid", reasons=0, said=[])

    def judge(self, data):
        fake_library.errors.extend(judged.said)
        return judged.validity, judged.reasons

    trt.Runtime.get_engine_validity = judge
    return judged


def test_rtx_records_runs_itself_and_keeps_its_kernels_beside_the_plan(
    source, make_plan, fake_library, portable, gpu, engine, feeds_of, expected
):
    plan = make_plan()
    feeds = {**feeds_of(3), "noise_level": np.full(3, -1)}
    for known in (None, b"kernels"):
        with trt.open_session(source, plan, fake_library, gpu) as session:
            for _ in range(3):
                np.testing.assert_array_equal(session.run(feeds)["eps"], expected(feeds))
        settings = engine.settings
        assert settings.cuda_graph_strategy == "whole"
        assert settings.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert getattr(settings, "known", None) == known
    assert gpu.count("record") == 0


def test_a_library_that_has_no_kernels_to_keep_closes_all_the_same(
    source, make_plan, fake_library, portable, gpu, engine, monkeypatch
):
    nothing = SimpleNamespace(deserialize=lambda data: False, serialize=lambda: None)
    settings = type(engine.create_runtime_config())
    monkeypatch.setattr(settings, "create_runtime_cache", lambda _: nothing)
    plan = make_plan()
    trt.open_session(source, plan, fake_library, gpu).close()
    assert list(plan.path.parent.glob("*.kernels*")) == []


@pytest.mark.parametrize(
    ("reasons", "said", "told"),
    [
        (2, [], r"\(UNSUPPORTED_CC\): tensorrt-rtx gives no reason; build again with --target of"),
        (3, ["built by 1.6"], r"\(VERSION_MISMATCH, UNSUPPORTED_CC\): built by 1.6; build again"),
        (4, ["CUDA 12.2"], r"\(OLD_CUDA_DRIVER\): CUDA 12.2; update the NVIDIA driver$"),
        (256, [], r"\(reasons 256\): tensorrt-rtx gives no reason; update the NVIDIA driver$"),
    ],
)
def test_a_plan_that_rtx_calls_invalid_here_is_refused_before_it_is_opened(
    source, make_plan, fake_library, portable, gpu, runtimes, reasons, said, told
):
    plan = make_plan()
    portable.validity, portable.reasons, portable.said = "invalid", reasons, said
    with pytest.raises(BackendError, match=r"calls it invalid on this GPU " + told):
        trt.open_session(source, plan, fake_library, gpu)
    assert runtimes[-1].opened == []


def test_a_plan_that_finds_no_room_on_the_gpu_is_a_matter_of_memory(
    source, make_plan, fake_library, portable, gpu
):
    plan = make_plan()
    portable.validity, portable.reasons = "invalid", 16
    with pytest.raises(DeviceMemoryError, match=r"INSUFFICIENT_GPU_MEMORY\); free memory"):
        trt.open_session(source, plan, fake_library, gpu)


def test_compiled_kernels_are_kept_whole_or_not_read_back(tmp_path):
    file = tmp_path / "denoiser.kernels"
    trt._write_cache(file, b"kernels")
    assert trt._read_cache(file) == b"kernels"
    file.write_bytes(file.read_bytes()[:-1])
    assert trt._read_cache(file) is None
    assert trt._read_cache(tmp_path / "none") is None


def test_a_kernel_cache_that_cannot_be_written_is_only_noted(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        trt._write_cache(tmp_path / "no" / "such.kernels", b"kernels")
    assert "not kept" in caplog.text


@pytest.mark.parametrize(
    "text", ["Error Code 2: OutOfMemory (no)", "memory of 9 B could not be allocated"]
)
def test_the_librarys_words_for_no_memory_become_one_error(fake_library, text):
    fake_library.errors.extend(["first", text])
    error = fake_library.failure("predict: cannot run", BackendError)
    assert isinstance(error, DeviceMemoryError)
    assert not fake_library.errors


def test_other_words_keep_their_kind_and_their_advice(fake_library):
    fake_library.errors.extend(["the cause", "the consequence"])
    error = fake_library.failure("predict: cannot run", BackendError, "try again")
    assert type(error) is BackendError
    assert str(error) == "predict: cannot run: the cause; try again"


def test_a_machine_without_the_packages_gets_one_line_per_backend(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(libraries, "driver_problem", lambda: None)
    for name, extra in libraries.EXTRAS.items():
        line = libraries.unusable(name)
        assert line.endswith(f"is not installed; pip install 'lvdm-rt[{extra}]'")
    monkeypatch.setattr(libraries, "driver_problem", lambda: "no GPU")
    assert libraries.unusable("tensorrt") == (
        "no GPU; use --backend cpu; GPU backends also need pip install 'lvdm-rt[tensorrt]'"
    )


def test_a_machine_with_the_packages_but_no_gpu_is_not_told_to_install(monkeypatch):
    monkeypatch.setattr(libraries, "missing", lambda name: None)
    monkeypatch.setattr(libraries, "lacks_cuda", lambda name: None)
    monkeypatch.setattr(libraries, "driver_problem", lambda: "no GPU")
    assert libraries.unusable("tensorrt") == "no GPU; use --backend cpu"


def test_a_gpu_that_rtx_does_not_know_is_sent_to_tensorrt(fake_library, monkeypatch):
    known = SimpleNamespace(__members__={"SM80": 80, "SM89": 89, "SM120": 120})
    fake_library.trt.ComputeCapability = known
    library = replace(fake_library, name="tensorrt-rtx")

    def there(capability):
        gpu = Gpu("NVIDIA GPU", capability, 1, 1, "CUDA 13.0")
        monkeypatch.setattr(libraries, "gpus", lambda: [gpu])
        return libraries.unsupported_gpu(library)

    assert "does not list compute capability 9.0 (NVIDIA GPU); use --backend tensorrt" in there(
        "9.0"
    )
    assert there("8.9") is None
    assert there("12.0") is None


def test_a_library_that_does_not_start_is_one_error_that_says_why(fake_library):
    def null(network, logger):
        fake_library.errors.append("CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    fake_library.errors.append("an earlier failure")
    with pytest.raises(
        BackendError,
        match=r"^tensorrt: cannot create a null: CUDA initialization failure with error: 35; "
        "update the NVIDIA driver$",
    ):
        fake_library.create(null, "the network")


def test_the_warning_that_cuda_does_not_start_is_kept_as_a_reason(fake_library):
    logger = libraries.make_logger(fake_library.trt, fake_library.errors)
    severity = fake_library.trt.ILogger.Severity
    logger.log(severity.WARNING, "Unable to determine GPU memory usage")
    logger.log(severity.WARNING, "CUDA initialization failure with error: 35.\n Check it")
    assert list(fake_library.errors) == ["CUDA initialization failure with error: 35. Check it"]


@pytest.fixture
def installed(fake_library, runtimes, monkeypatch):
    """A machine with the packages, a driver and a GPU; returns what makes it another GPU."""

    def there(capability):
        gpu = Gpu("NVIDIA GPU", capability, 1, 1, "CUDA 13.0")
        monkeypatch.setattr(libraries, "gpus", lambda: [gpu])

    there("9.0")
    libraries._start_problem.cache_clear()
    for name in ("missing", "lacks_cuda"):
        monkeypatch.setattr(libraries, name, lambda name: None)
    monkeypatch.setattr(libraries, "driver_problem", lambda: None)
    monkeypatch.setattr(libraries, "load_library", lambda name: fake_library)
    yield there
    libraries._start_problem.cache_clear()


def test_a_library_counts_as_usable_once_it_has_started(installed, runtimes):
    assert libraries.unusable("tensorrt") is None
    assert libraries.unusable("tensorrt") is None
    assert len(runtimes) == 1


def test_a_library_that_does_not_start_is_unusable(installed, fake_library):
    def null(logger):
        fake_library.errors.append("CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    fake_library.trt.Runtime = null
    assert libraries.unusable("tensorrt") == (
        "cannot create a null: CUDA initialization failure with error: 35; update the NVIDIA driver"
    )


@pytest.mark.parametrize(
    ("capability", "version", "usable"),
    [("7.5", "11.4.0", True), ("7.0", "11.4.0", False), ("7.0", "10.13.0", True)],
)
def test_a_gpu_before_turing_is_refused_for_tensorrt_11(
    installed, fake_library, monkeypatch, capability, version, usable
):
    installed(capability)
    library = replace(fake_library, version=version)
    monkeypatch.setattr(libraries, "load_library", lambda name: library)
    told = libraries.unusable("tensorrt")
    assert (told is None) == usable
    assert usable or "needs compute capability 7.5 or newer, got 7.0 (NVIDIA GPU)" in told


@pytest.mark.parametrize("name", libraries.EXTRAS)
def test_a_library_that_cannot_be_imported_names_the_package_to_install_again(name, monkeypatch):
    def fail(module):
        raise ImportError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(libraries, "missing", lambda name: None)
    monkeypatch.setattr(libraries.importlib, "import_module", fail)
    libraries.load_library.cache_clear()
    with pytest.raises(BackendError, match=rf"pip install --force-reinstall {name}$"):
        libraries.load_library(name)
