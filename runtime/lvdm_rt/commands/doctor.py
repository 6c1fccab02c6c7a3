"""What works on this machine: backends, threads, encoders, built-in bundles."""

import platform
from importlib import metadata

import msgspec

from lvdm_engines.backends.gpu.driver import Gpu, gpus
from lvdm_engines.backends.processor import usable_cores
from lvdm_engines.bundle import builtin_bundles, load_bundle
from lvdm_engines.errors import LvdmError
from lvdm_engines.opening import backend_report
from lvdm_rt.text.tokenizer import load_tokenizer
from lvdm_rt.video import OUTPUT_KINDS, missing_encoder

_PACKAGES = ("numpy", "onnxruntime", "av")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_BACKEND_PACKAGES = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx",),
    "cuda": ("onnxruntime-gpu",),
    "openvino": ("openvino",),
    "cpu": _RUNTIMES,
}


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was looked at; `problem` says what is wrong and how to mend it."""

    name: str
    version: str | None = None
    problem: str | None = None


class Diagnosis(msgspec.Struct, frozen=True):
    """Everything the doctor found."""

    python: str
    machine: str
    cpu_threads: int
    gpus: list[Finding]
    packages: list[Finding]
    backends: list[Finding]
    encoders: list[Finding]
    bundles: list[Finding]

    @property
    def healthy(self) -> bool:
        """Whether a video can be generated and written at all."""
        return all(
            any(check.problem is None for check in checks)
            for checks in (self.backends, self.encoders)
        )


def diagnose() -> Diagnosis:
    """Look at this machine; nothing is downloaded, built or changed."""
    return Diagnosis(
        python=platform.python_version(),
        machine=platform.platform(),
        cpu_threads=usable_cores(),
        gpus=[_gpu(index, gpu) for index, gpu in enumerate(gpus(memory=True))],
        packages=[Finding("lvdm-rt", _version("lvdm-rt")), *(_package(name) for name in _PACKAGES)],
        backends=[
            Finding(name, _named_version(*_BACKEND_PACKAGES.get(name, ())), problem)
            for name, problem in backend_report().items()
        ],
        encoders=[Finding(kind, problem=missing_encoder(kind)) for kind in OUTPUT_KINDS],
        bundles=[_bundle(name) for name in builtin_bundles()],
    )


def _gpu(index: int, gpu: Gpu) -> Finding:
    free = "unknown" if gpu.free is None else f"{gpu.free / 2**30:.1f}"
    return Finding(
        f"GPU {index}",
        f"{gpu.name}, compute capability {gpu.capability}, "
        f"{free} of {gpu.total / 2**30:.1f} GiB free, driver {gpu.driver}",
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _named_version(*packages: str) -> str | None:
    """Return name and version of the first package that is installed."""
    found = ((package, _version(package)) for package in packages)
    return next((f"{package} {version}" for package, version in found if version), None)


def _package(name: str) -> Finding:
    if name == "onnxruntime":
        return _onnxruntime()
    found = _version(name)
    return Finding(name, found, None if found else f"not installed; pip install {name}")


def _onnxruntime() -> Finding:
    """Look at the two wheels that hold the same module; one of them is needed, and only one."""
    found = [f"{name} {version}" for name in _RUNTIMES if (version := _version(name))]
    problem = None
    if not found:
        problem = "not installed; pip install 'lvdm-rt[cpu]', or [cuda] for NVIDIA GPUs"
    elif len(found) > 1:
        problem = (
            f"{' and '.join(found)} overwrite each other; "
            f"pip uninstall -y {' '.join(_RUNTIMES)} && pip install 'lvdm-rt[cuda]' (or [cpu])"
        )
    return Finding("onnxruntime", " ".join(found[:1]).removeprefix("onnxruntime ") or None, problem)


def _bundle(name: str) -> Finding:
    try:
        bundle = load_bundle(name)
        for graph in bundle.manifest.graphs:
            bundle.graph(graph).verified()
        if bundle.manifest.model.context is not None:
            load_tokenizer(bundle)
    except LvdmError as err:
        return Finding(name, problem=str(err))
    return Finding(name, bundle.manifest.provenance.lvdm_rt)
