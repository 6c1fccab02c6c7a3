"""The libraries themselves: what they say, and whether they can be used here."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from lvdm_engines.backends.trt import library as libraries
from lvdm_engines.errors import BackendError, DeviceMemoryError


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        (
            "Error Code 2: OutOfMemory (no)",
            DeviceMemoryError,
            "predict: cannot run: out of memory (",
        ),
        (
            "memory of 9 B could not be allocated",
            DeviceMemoryError,
            "predict: cannot run: out of memory (",
        ),
        ("the consequence", BackendError, "predict: cannot run: the cause; try again"),
    ],
)
def test_the_librarys_words_become_one_error_with_its_advice(fake_library, said, kind, told):
    fake_library.errors.extend(["the cause", said])
    error = fake_library.failure("predict: cannot run", BackendError, "try again")
    assert type(error) is kind
    assert str(error).startswith(told)
    assert not fake_library.errors


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


def test_a_machine_with_the_packages_but_no_gpu_is_not_told_to_install(installed, set_gpus):
    set_gpus()
    assert libraries.unusable("tensorrt") == "no GPU; use --backend cpu"


@pytest.mark.parametrize(("capability", "known"), [("9.0", False), ("8.9", True), ("12.0", True)])
def test_a_gpu_that_rtx_does_not_know_is_sent_to_tensorrt(
    fake_library, set_gpus, capability, known
):
    members = {"SM80": 80, "SM89": 89, "SM120": 120}
    fake_library.trt.ComputeCapability = SimpleNamespace(__members__=members)
    set_gpus(("NVIDIA GPU", capability))
    told = libraries.unsupported_gpu(replace(fake_library, name="tensorrt-rtx"))
    assert (told is None) == known
    assert known or "does not list compute capability 9.0 (NVIDIA GPU); use --backend tens" in told


def null(*arguments):
    """A constructor that finds no CUDA, as the bindings have it."""
    arguments[-1].errors.append("CUDA initialization failure with error: 35")
    raise TypeError("pybind11::init(): factory function returned nullptr")


def test_the_warning_that_cuda_does_not_start_is_kept_as_a_reason(fake_library):
    logger = libraries.make_logger(fake_library.trt, fake_library.errors)
    severity = fake_library.trt.ILogger.Severity
    logger.log(severity.WARNING, "Unable to determine GPU memory usage")
    logger.log(severity.WARNING, "CUDA initialization failure with error: 35.\n Check it")
    assert list(fake_library.errors) == ["CUDA initialization failure with error: 35. Check it"]


def test_a_library_counts_as_usable_once_it_has_started(installed, runtimes):
    assert libraries.unusable("tensorrt") is None
    assert libraries.unusable("tensorrt") is None
    assert len(runtimes) == 1


def test_a_library_that_does_not_start_is_unusable_and_says_why(
    installed, fake_library, monkeypatch
):
    library = replace(fake_library, logger=fake_library)
    library.errors.append("an earlier failure")
    with pytest.raises(BackendError, match=r"^tensorrt: cannot create a null: CUDA init"):
        library.create(null, "the network")
    library.trt.Runtime = null
    monkeypatch.setattr(libraries, "load_library", lambda name: library)
    told = "CUDA initialization failure with error: 35; update the NVIDIA driver"
    assert libraries.unusable("tensorrt") == f"cannot create a null: {told}"


@pytest.mark.parametrize(
    ("capability", "version", "usable"),
    [("7.5", "11.4.0", True), ("7.0", "11.4.0", False), ("7.0", "10.13.0", True)],
)
def test_a_gpu_before_turing_is_refused_for_tensorrt_11(
    installed, fake_library, runtimes, set_gpus, monkeypatch, capability, version, usable
):
    set_gpus(("NVIDIA GPU", capability))
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
