"""Put the weights of another export of the same graph into a plan, instead of compiling again."""

from typing import Any

from lvdm_engines.backends.plan_facts import rebuild_command
from lvdm_engines.backends.trt.library import TrtLibrary
from lvdm_engines.backends.trt.opening import load_engine, runtimes_for
from lvdm_engines.backends.trt.store import CompiledPlan
from lvdm_engines.bundle import GraphSource
from lvdm_engines.errors import BackendError, ExportError


def check_library(library: TrtLibrary) -> None:
    """Refuse a library whose refitted plans could not be refitted again. Raises BackendError."""
    if not hasattr(library.trt.SerializationFlag, "INCLUDE_REFIT"):
        raise BackendError(
            f"got {library.name} {library.version}, expected 10.14 or newer, which writes plans "
            "with other weights that stay refittable; leave --refit-from out to compile instead"
        )


def refit(plan: CompiledPlan, source: GraphSource, library: TrtLibrary) -> Any:
    """Return `plan` with the weights of `source`, as bytes-like, refittable again.

    Needs the GPU that the plan is for, current in this thread.

    Raises BackendError for a plan that was not built to be refitted or cannot be opened,
    ExportError where the graphs differ in more than their weights, DeviceMemoryError.
    """
    made = plan.facts.fingerprint
    build = rebuild_command(str(source.folder), library.name, made.options)
    trt = library.trt
    owners = runtimes_for(library, plan)
    engine = load_engine(library, owners[-1], plan)
    if not engine.refittable:
        raise BackendError(f"{plan.path}: was not built with --refit; compile instead: {build}")
    refitter = library.create(trt.Refitter, engine)
    weights = library.create(trt.OnnxParserRefitter, refitter)
    if not weights.refit_from_file(str(source.verified())):
        faults = [" ".join(weights.get_error(i).desc().split()) for i in range(weights.num_errors)]
        why = faults[0] if faults else "the parser gives no reason"
        raise ExportError(
            f"{source.name}: the weights of {source.facts.file} do not fit {plan.path}: {why}; "
            f"compile instead: {build}"
        )
    if not refitter.refit_cuda_engine():
        raise library.failure(
            f"{plan.path}: cannot take the weights of {source.facts.file}",
            ExportError,
            f"compile instead: {build}",
        )
    storing = engine.create_serialization_config()
    storing.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
    data = engine.serialize_with_config(storing)
    if data is None:
        raise library.failure(f"{plan.path}: cannot be written again", BackendError)
    return data
