"""TensorRT or TensorRT-RTX, whichever a plan is for: import, messages and what sets them apart.

Both offer one Python API; only TensorRT-RTX finishes its plans on the GPU that runs them.
"""

import importlib
import importlib.util
import logging
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lvdm_engines.backends.gpu.driver import Gpu, driver_problem, gpus, without_gpu
from lvdm_engines.errors import BackendError, DeviceMemoryError, LvdmError
from lvdm_engines.manifest import TensorSpec

_log = logging.getLogger(__name__)

_PORTABLE = "tensorrt-rtx"
ANY = "any"  # the GPU of a plan that the driver finishes wherever it runs
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
_OLDEST = {"tensorrt": (10, 12), "tensorrt-rtx": (1, 7)}
_OLDEST_GPU = (7, 5)  # for TensorRT 11
_MEMORY = re.compile(r"out ?of ?memory|could not be allocated|FAILED_ALLOCATION", re.IGNORECASE)
_NO_CUDA = "CUDA initialization failure"
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "UINT8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class TrtLibrary:
    """An imported library, its logger, and the errors it reported last."""

    name: str
    trt: Any
    version: str
    logger: Any
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=8))

    @property
    def portable(self) -> bool:
        """Whether plans are finished on the GPU that runs them."""
        return self.name == _PORTABLE

    def spec(self, name: str, dtype: Any, shape: Iterable[int]) -> TensorSpec:
        """Describe a tensor in the manifest's words; -1 is a free size."""
        word: Any = _DTYPES.get(dtype.name, str(dtype.name).lower())
        return TensorSpec(name, word, tuple(size if size >= 0 else "?" for size in shape))

    def create(self, kind: Any, *arguments: Any) -> Any:
        """Make one of the library's objects that take its logger.

        Raises BackendError where the library has none to give, DeviceMemoryError for want of
        memory.
        """
        self.errors.clear()
        try:
            return kind(*arguments, self.logger)
        except TypeError as err:  # how the bindings tell of a null pointer
            what = f"{self.name}: cannot create a {kind.__name__}"
            raise self.failure(what, BackendError, "update the NVIDIA driver") from err

    def failure(self, what: str, kind: type[LvdmError], advice: str = "") -> LvdmError:
        """Turn what the library logged since the last failure into one error of one line."""
        text = next((line for line in self.errors if _MEMORY.search(line)), None)
        lines = list(self.errors)
        self.errors.clear()
        if text is not None:
            return DeviceMemoryError(f"{what}: out of memory ({text}); lower the batch size")
        said = lines[0] if lines else f"{self.name} gives no reason"
        return kind(f"{what}: {said}" + (f"; {advice}" if advice else ""))


@dataclass(frozen=True)
class TargetMachine:
    """What a plan must match: this machine's library and GPU."""

    library: str
    version: str
    gpu: str
    capability: str

    @property
    def portable(self) -> bool:
        """Whether plans are finished on the GPU that runs them."""
        return self.library == _PORTABLE


@cache
def load_library(name: str) -> TrtLibrary:
    """Import the library behind a backend. Raises BackendError if it is missing or too old."""
    problem = missing(name)
    if problem:
        raise BackendError(f"{name}: {problem}")
    try:
        trt: Any = importlib.import_module(_MODULES[name])
    except (ImportError, OSError) as err:
        raise BackendError(f"{name}: {_broken(name, err)}") from err
    errors: deque[str] = deque(maxlen=8)
    return TrtLibrary(name, trt, str(trt.__version__), make_logger(trt, errors), errors)


def target_machine(library: TrtLibrary, device: int = 0) -> TargetMachine:
    """Return what a plan that runs on GPU `device` must match. Raises BackendError without it."""
    found = gpus()
    if device < len(found):
        gpu = found[device]
        return TargetMachine(library.name, library.version, gpu.name, gpu.capability)
    problem = driver_problem()
    why = f"{problem}; run this on the machine with the GPU, or use --backend cpu"
    if problem is None:
        why = f"there is no GPU {device}, found {len(found)}; see nvidia-smi"
    raise BackendError(f"{library.name}: {why}")


def missing(name: str) -> str | None:
    """Say what must be installed before the library can be imported, or None."""
    if importlib.util.find_spec(_MODULES[name]) is None:
        package = _MODULES[name].replace("_", "-")
        return f"{package} is not installed; pip install 'lvdm-rt[{EXTRAS[name]}]'"
    return None


def unusable(name: str) -> str | None:
    """Say in one line why plans of this library cannot run here and what would fix it."""
    lacking = missing(name) or lacks_cuda(name)
    problem = driver_problem()
    if problem:
        return without_gpu(problem, lacking)
    if lacking:
        return lacking
    try:
        library = load_library(name)
    except BackendError as err:
        return str(err).removeprefix(f"{name}: ")
    return too_old(library) or unsupported_gpu(library) or _start_problem(name)


def too_old(library: TrtLibrary) -> str | None:
    """Say which version would do, where this one is too old, or None."""
    found = tuple(int(part) for part in re.findall(r"\d+", library.version)[:2])
    if found < _OLDEST[library.name]:
        oldest = ".".join(map(str, _OLDEST[library.name]))
        return (
            f"got version {library.version}, expected {oldest} or newer; "
            f"pip install -U 'lvdm-rt[{EXTRAS[library.name]}]'"
        )
    return None


@cache
def _start_problem(name: str) -> str | None:
    """Start the library on the GPU, and return why it cannot or None: a driver may be too old."""
    library = load_library(name)
    try:
        library.create(library.trt.Runtime)
    except LvdmError as err:
        return str(err).removeprefix(f"{name}: ")
    return None


def lacks_cuda(name: str) -> str | None:
    """Say which CUDA package must be installed before a GPU can be used from here, or None."""
    for module in ("cuda", "cuda.core"):
        if importlib.util.find_spec(module) is None:
            return f"cuda-core is not installed; pip install 'lvdm-rt[{EXTRAS[name]}]'"
    if importlib.util.find_spec("cuda.bindings") is None:
        return "cuda-bindings is not installed; pip install cuda-bindings"
    return None


def unsupported_gpu(library: TrtLibrary) -> str | None:
    """Say why no GPU here can run the library's plans, or None.

    TensorRT-RTX names the capabilities it compiles for; 9.0 is not among them.
    """
    found = gpus()
    if not found:
        return None
    if not library.portable:
        return _old_gpu(library, found)
    known = {n.removeprefix("SM") for n in library.trt.ComputeCapability.__members__}
    if any(gpu.capability.replace(".", "") in known for gpu in found):
        return None
    return (
        f"version {library.version} does not list compute capability {found[0].capability} "
        f"({found[0].name}); use --backend tensorrt"
    )


def _old_gpu(library: TrtLibrary, found: list[Gpu]) -> str | None:
    """TensorRT 11 dropped what came before Turing, and says so only while compiling."""
    newest = max(found, key=lambda gpu: _numbers(gpu.capability))
    if _numbers(newest.capability) >= _OLDEST_GPU or not library.version.startswith("11."):
        return None
    return (
        f"version {library.version} needs compute capability {'.'.join(map(str, _OLDEST_GPU))} or "
        f"newer, got {newest.capability} ({newest.name}); use --backend cuda"
    )


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))


def _broken(name: str, err: Exception) -> str:
    line = (str(err).strip().splitlines() or [type(err).__name__])[0]
    return f"cannot be imported ({line}); pip install --force-reinstall {name}"


def make_logger(trt: Any, errors: deque[str]) -> Any:
    """Return a logger that keeps errors for messages and passes the rest to `logging`."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.DEBUG,  # told once, by the exception
        trt.ILogger.Severity.ERROR: logging.DEBUG,
        trt.ILogger.Severity.WARNING: logging.INFO,
    }

    class Logger(trt.ILogger):  # type: ignore[misc] # the library has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            line = " ".join(message.split())
            told = levels.get(severity) == logging.DEBUG
            if told or _NO_CUDA in line:  # a mere warning, though nothing works after it
                errors.append(line)
            _log.log(levels.get(severity, logging.DEBUG), "%s", line)

    return Logger()
