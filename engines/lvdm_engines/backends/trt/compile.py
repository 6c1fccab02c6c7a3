"""Compile one ONNX file into a plan, with TensorRT or TensorRT-RTX, by one path."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvdm_engines.backends.gpu.driver import gpus
from lvdm_engines.backends.plan_facts import PlanOptions, Profile
from lvdm_engines.backends.trt.library import TrtLibrary
from lvdm_engines.backends.trt.profiles import shape_at
from lvdm_engines.contract import mismatch
from lvdm_engines.errors import BackendError, ExportError, one_line, quoted
from lvdm_engines.manifest import GraphFacts, TensorSpec

TURING = "7.5"  # compute capability that TensorRT-RTX leaves out unless asked
_OTHERWISE = "export with --precision fp16, or use --backend cuda"


@dataclass(frozen=True)
class Step:
    """Where a build is: step `done` of `of` in a phase, which may lie inside another."""

    phase: str
    inside: str | None
    done: int
    of: int


@dataclass(frozen=True)
class CompileJob:
    """One file to compile; `name` stands in messages."""

    name: str
    path: Path
    facts: GraphFacts
    profiles: tuple[Profile, ...]
    options: PlanOptions


def compile_plan(
    job: CompileJob,
    library: TrtLibrary,
    progress: Callable[[Step], None] | None = None,
    activate: Callable[[], None] | None = None,
) -> Any:
    """Return a plan as bytes-like; the network is strongly typed: precision lies in the graph.

    Builds in a thread of its own, so that an interrupt comes here and not to the library, which
    calls back into Python and swallows whatever is raised there, signals included. `activate` is
    called in that thread first: it chooses the GPU to build on, which is a matter of the thread.

    Raises ExportError for a graph that the library cannot parse or compile, DeviceMemoryError when
    memory runs out, BackendError for impossible options or where the library does not start, and
    whatever `progress` raises, an interrupt included.
    """
    check_options(library, job.options)
    library.errors.clear()
    monitor = make_monitor(library.trt, progress)
    with ThreadPoolExecutor(1, "build") as pool:
        building = pool.submit(_compile, job, library, monitor, activate)
        try:
            plan = building.result()
        except BaseException as err:
            monitor.error = err  # ends the build at its next step, for which the pool waits
            raise
    if monitor.error is not None:
        raise monitor.error
    if plan is None:
        raise library.failure(
            f"{job.name}: {library.name} cannot compile {job.path.name}",
            ExportError,
            _OTHERWISE if TURING in job.options.targets else "use --backend cuda",
        )
    return plan


def _compile(
    job: CompileJob, library: TrtLibrary, monitor: Any, activate: Callable[[], None] | None
) -> Any:
    if activate is not None:
        activate()
    trt = library.trt
    builder = library.create(trt.Builder)
    strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strong)
    parser = _parse(job, library, network)
    _check_network(job, library, network)
    config = _config(job, library, builder)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    del parser  # the network refers to weights that the parser holds
    return plan


def _parse(job: CompileJob, library: TrtLibrary, network: Any) -> Any:
    parser = library.create(library.trt.OnnxParser, network)
    if parser.parse_from_file(str(job.path)):
        return parser
    faults = [parser.get_error(i) for i in range(parser.num_errors)]
    told = [
        f"node {quoted(fault.node_name())} ({fault.node_operator()}): {one_line(fault.desc(), 300)}"
        for fault in faults
    ]
    why = told[0] if told else "the parser gives no reason"
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    raise ExportError(
        f"{job.name}: {library.name} {library.version} cannot read {job.path.name}: {why}{more}; "
        "export the bundle again, or use --backend cuda"
    )


def _check_network(job: CompileJob, library: TrtLibrary, network: Any) -> None:
    """Refuse a network whose tensors are not the declared ones."""
    inputs = [_spec(library, network.get_input(i)) for i in range(network.num_inputs)]
    outputs = [_spec(library, network.get_output(i)) for i in range(network.num_outputs)]
    problem = mismatch(inputs, outputs, job.facts)
    if problem:
        raise ExportError(
            f"{job.name}: {job.path.name} is not what the manifest declares: {problem}; "
            "export the bundle again"
        )


def _spec(library: TrtLibrary, tensor: Any) -> TensorSpec:
    return library.spec(tensor.name, tensor.dtype, tensor.shape)


def _config(job: CompileJob, library: TrtLibrary, builder: Any) -> Any:
    trt, options = library.trt, job.options
    config = builder.create_builder_config()
    for profile in job.profiles:
        config.add_optimization_profile(_native_profile(job, library, builder, profile))
    config.builder_optimization_level = options.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the inspector
    config.max_aux_streams = 0  # one stream: simplest to capture, least memory
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if library.portable:
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # so that runs can be captured
        _aim(library, config, options)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        # a plan with the lean runtime inside is host code, which our loader refuses to run
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    return config


def check_options(library: TrtLibrary, options: PlanOptions) -> None:
    """Refuse options that the library cannot fulfil here. Raises BackendError."""
    if not library.portable:
        if options.targets:
            raise BackendError(f"{library.name} compiles for the GPU at hand; leave --target out")
        return
    if options.version_compatible:
        raise BackendError(
            f"{library.name} has no version-compatible plans; leave --version-compatible out"
        )
    if options.refit and not gpus():
        raise BackendError(f"{library.name} makes refittable plans only where there is a GPU")
    here = {gpu.capability for gpu in gpus()}
    if here == {TURING} and not options.targets:
        raise BackendError(
            f"{library.name} compiles for compute capability {TURING} only if it is asked to: give "
            f"--target {TURING}, and a bundle exported with --precision fp16"
        )
    known = _capabilities(library)
    for target in options.targets:
        if target not in known:
            raise BackendError(
                f"got target {quoted(target)}, expected compute capabilities out of "
                f"{', '.join(known)} for {library.name} {library.version}"
            )


def _native_profile(job: CompileJob, library: TrtLibrary, builder: Any, profile: Profile) -> Any:
    optimization = builder.create_optimization_profile()
    for spec in job.facts.inputs:
        shapes = [shape_at(spec, profile, which) for which in ("min", "opt", "max")]
        try:
            optimization.set_shape(spec.name, *shapes)
        except ValueError as err:
            raise library.failure(f"{job.name}: input {spec}: {err}", ExportError) from err
    return optimization


def _aim(library: TrtLibrary, config: Any, options: PlanOptions) -> None:
    """Set the compute capabilities to compile for; the library has its own default."""
    known = _capabilities(library)
    if options.targets:
        config.num_compute_capabilities = len(options.targets)
    for index, target in enumerate(options.targets):
        config.set_compute_capability(known[target], index)


def _capabilities(library: TrtLibrary) -> dict[str, Any]:
    """Return what TensorRT-RTX compiles for, by names such as 8.6."""
    return {
        f"{n[2:-1]}.{n[-1]}": value
        for n, value in library.trt.ComputeCapability.__members__.items()
        if n.startswith("SM")
    }


def make_monitor(trt: Any, progress: Callable[[Step], None] | None) -> Any:
    """Return a monitor that hands steps to `progress` and stops the build where that raises."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the library has no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._phases: dict[str, tuple[str | None, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = (parent_phase or None, num_steps)
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return self.error is None  # False ends the build

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

        def _tell(self, phase: str, done: int) -> None:
            if progress is None or self.error is not None:
                return
            inside, of = self._phases.get(phase, (None, done))
            try:
                progress(Step(phase, inside, done, of))
            except BaseException as err:  # noqa: BLE001 - must not unwind through the library
                self.error = err

    return Monitor()
