"""The backends tensorrt and tensorrt-rtx: find the plan, check it, open it on a GPU."""

import hashlib
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lvdm_engines.atomic import read_file, whole_file
from lvdm_engines.backends.backend import Backend, SessionOptions
from lvdm_engines.backends.gpu.cuda_device import CudaDevice
from lvdm_engines.backends.gpu.scratch import shared_scratch
from lvdm_engines.backends.plan_facts import rebuild_command
from lvdm_engines.backends.trt import library as libraries
from lvdm_engines.backends.trt.context import OpenEngine
from lvdm_engines.backends.trt.library import TrtLibrary
from lvdm_engines.backends.trt.session import TrtSession
from lvdm_engines.backends.trt.store import CompiledPlan, find_plan
from lvdm_engines.backends.trt.vouched import is_vouched, vouch
from lvdm_engines.bundle import GraphSource
from lvdm_engines.contract import mismatch
from lvdm_engines.errors import BackendError, BundleError, DeviceMemoryError, LvdmError

_log = logging.getLogger(__name__)

_CURED_BY_BUILDING = {"VERSION_MISMATCH", "MALFORMED_ENGINE"}
_CACHE_LIMIT = 100 << 20  # bytes: a larger cache of kernels loads more slowly than it saves


def _backend(name: str) -> Backend:
    def opener(source: GraphSource, options: SessionOptions) -> Callable[[], TrtSession]:
        library = libraries.load_library(name)
        here = libraries.target_machine(library, options.device)
        plan = find_plan(source, here, options.plan)

        def open_plan() -> TrtSession:
            device = CudaDevice(options.device)
            return open_session(source, plan, library, device, options.device)

        return open_plan

    return Backend(lambda: libraries.unusable(name), opener)


def open_session(
    source: GraphSource, plan: CompiledPlan, library: TrtLibrary, device: CudaDevice, index: int = 0
) -> TrtSession:
    """Open a plan that fits on a device.

    Raises BundleError for a damaged plan or ONNX file, BackendError for a plan that the library
    refuses, DeviceMemoryError where the weights do not fit.
    """
    source.verified()  # a plan of a replaced graph would answer for something else
    fingerprint = plan.facts.fingerprint
    owners = runtimes_for(library, plan)
    engine = load_engine(library, owners[-1], plan)
    _check_engine(source, library, engine, plan.rebuild)
    new_context, keep = _contexts(library, engine, plan)
    opened = OpenEngine(
        name=source.name,
        library=library,
        engine=engine,
        new_context=new_context,
        device=device,
        scratch=shared_scratch(index, device),
        stream=device.stream(),
        inputs=source.facts.inputs,
        outputs=source.facts.outputs,
        profiles=fingerprint.profiles,
        record=not library.portable,
        owners=owners,
    )
    rebuild = rebuild_command(str(source.folder), library.name, fingerprint.options)
    return TrtSession(opened, rebuild, keep)


def runtimes_for(library: TrtLibrary, plan: CompiledPlan) -> tuple[Any, ...]:
    """Return the runtime for a plan, last, and the one that loaded it, if that is another."""
    runtime = library.create(library.trt.Runtime)
    runtime.engine_host_code_allowed = False  # never run host code out of a plan
    owners = [runtime]
    made = plan.facts.fingerprint
    if made.options.version_compatible and made.version != library.version:
        # the plan's own version runs it, from a library of its own that is installed, not shipped
        spec = importlib.util.find_spec("tensorrt_lean_libs")
        folders = list(spec.submodule_search_locations or []) if spec else []
        found = [path for f in folders for path in Path(f).glob("libnvinfer_lean.so.*")]
        if not found:
            raise BackendError(
                f"{plan.path}: was built by version {made.version}, which runs under "
                f"{library.version} only with its lean runtime; "
                f"pip install tensorrt-lean=={made.version}"
            )
        runtime = runtime.load_runtime(str(found[0]))
        if runtime is None:
            raise library.failure(f"{found[0]}: cannot be loaded", BackendError)
        runtime.engine_host_code_allowed = False
        owners.append(runtime)
    return tuple(owners)


def load_engine(library: TrtLibrary, runtime: Any, plan: CompiledPlan) -> Any:
    """Deserialize a plan whose sha256 was checked first."""
    data = plan.read()
    library.errors.clear()
    if hasattr(runtime, "get_engine_validity"):
        validity, reasons = runtime.get_engine_validity(data)
        if validity == library.trt.EngineValidity.INVALID:
            raise _invalid(library, plan, reasons)
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise library.failure(
            f"{plan.path}: cannot be opened", BackendError, f"build again: {plan.rebuild}"
        )
    return engine


def _invalid(library: TrtLibrary, plan: CompiledPlan, reasons: Any) -> LvdmError:
    """Say why a plan cannot run here, and what would help against that; reasons are bits."""
    bits: Any = getattr(library.trt, "EngineInvalidityDiagnostics", None)
    known = {} if bits is None else bits.__members__
    names = [name for name, bit in known.items() if int(reasons) & int(bit)]
    why = ", ".join(names) or f"reasons {reasons}"
    what = f"{plan.path}: {library.name} {library.version} calls it invalid on this GPU ({why})"
    if "INSUFFICIENT_GPU_MEMORY" in names:
        return DeviceMemoryError(f"{what}; free memory on the GPU, see nvidia-smi")
    if not _CURED_BY_BUILDING.isdisjoint(names):
        advice = f"build again: {plan.rebuild}"
    elif "UNSUPPORTED_CC" in names:
        advice = "build again with --target of this GPU's capability, or use --backend cuda"
    else:
        advice = "update the NVIDIA driver"
    return library.failure(what, BackendError, advice)


def _check_engine(source: GraphSource, library: TrtLibrary, engine: Any, rebuild: str) -> None:
    """Refuse an engine whose tensors are not the declared ones."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs, outputs = (
        [
            library.spec(name, engine.get_tensor_dtype(name), engine.get_tensor_shape(name))
            for name in names
            if engine.get_tensor_mode(name) == mode
        ]
        for mode in (library.trt.TensorIOMode.INPUT, library.trt.TensorIOMode.OUTPUT)
    )
    problem = mismatch(inputs, outputs, source.facts)
    if problem:
        raise BundleError(
            f"{source.folder}: graph {source.name!r}: the plan is not what the manifest declares: "
            f"{problem}; "
            f"build again: {rebuild}"
        )


def _contexts(
    library: TrtLibrary, engine: Any, plan: CompiledPlan
) -> tuple[Callable[[], Any], Callable[[], None] | None]:
    """Return what makes contexts without activation memory, and what to do before closing."""
    trt = library.trt
    managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if not library.portable:
        return lambda: engine.create_execution_context(managed), None
    settings = engine.create_runtime_config()
    settings.set_execution_context_allocation_strategy(managed)
    settings.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    # a sampling loop repeats its shapes: kernels made for them at once are worth the wait
    eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    settings.dynamic_shapes_kernel_specialization_strategy = eager
    kernels = settings.create_runtime_cache()
    file = plan.path.with_suffix(".kernels")
    known = _read_cache(file)
    if known is not None and not kernels.deserialize(known):
        _log.info("%s: made for another driver or GPU; kernels are compiled again", file)
    settings.set_runtime_cache(kernels)

    def keep() -> None:
        kept = kernels.serialize()
        if kept is not None:
            _write_cache(file, bytes(memoryview(kept)))

    # the settings must outlive the contexts, which the closure sees to
    return lambda: engine.create_execution_context(runtime_config=settings), keep


def _read_cache(file: Path) -> bytes | None:
    """Return compiled kernels kept by an earlier session of this user, if they are whole."""
    try:
        data = read_file(file)
    except OSError:
        return None
    digest = hashlib.sha256(data[32:])
    return data[32:] if digest.digest() == data[:32] and is_vouched(digest.hexdigest()) else None


def _write_cache(file: Path, data: bytes) -> None:
    if len(data) > _CACHE_LIMIT or data == _read_cache(file):
        return
    digest = hashlib.sha256(data)
    try:
        with whole_file(file) as new:
            new.write(digest.digest() + data)
            vouch(digest.hexdigest())
    except OSError as err:  # the cache only saves time
        _log.info("%s: not kept (%s)", file, err)


TENSORRT = _backend("tensorrt")
TENSORRT_RTX = _backend("tensorrt-rtx")
