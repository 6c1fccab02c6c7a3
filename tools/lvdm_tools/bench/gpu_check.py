"""Everything that only a GPU can show, measured in one run: `lvdm-tools gpu-check`.

Which backends work, how far they are from float32 on the CPU, milliseconds per denoiser step and
decoded clip beside PyTorch on the same device, and frames per second from end to end. What fails
or cannot run is recorded as such, beside what can.
"""

import datetime as dt
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import torch

from lvdm_engines.backends.backend import BACKENDS, SessionOptions, Timed
from lvdm_engines.backends.gpu.driver import gpus
from lvdm_engines.backends.plan_facts import PlanOptions
from lvdm_engines.backends.trt.build import build_plans
from lvdm_engines.backends.trt.compile import TURING
from lvdm_engines.bundle import Bundle
from lvdm_engines.manifest import Precision
from lvdm_engines.opening import backend_report, open_session
from lvdm_engines.session import Session
from lvdm_export.graph.export import count_gflop
from lvdm_export.graph.graphs import denoiser_graph
from lvdm_export.nets.unet3d import UNet3d
from lvdm_export.verify.backends import check_reference, compare_graph
from lvdm_rt import GenerateOptions
from lvdm_tools.bench import machine
from lvdm_tools.bench import torch_baseline as yardstick
from lvdm_tools.bench.clock import attempt, failure, median_ms
from lvdm_tools.bench.end_to_end import end_to_end
from lvdm_tools.bench.feeds import Feeds, random_feeds
from lvdm_tools.bench.gpu_page import judge
from lvdm_tools.bench.models import bundle_of, sizes, torch_graphs

SCHEMA = 2
_SIDES = 4096, 8192, 12288  # of the matrices that show a GPU's peak
_GRAPHS = ("predict", "decoder")
_STEPS = 10  # of DDIM per clip; the share of the host does not depend on their number
_BATCH = 8
_LAUNCHES = 20  # per timing of the device or of copies alone
_CHANGING = ("latents", "timestep")  # at every step; what else a denoiser reads stays for a clip


@dataclass(frozen=True)
class GpuCheck:
    """What to measure, where to keep it, and whom to tell.

    `device` is PyTorch's name of it; `backends` none stands for all; `work` keeps exported bundles
    and plans for the next run; `seconds` is spent on each number.
    """

    work: Path
    report: Callable[[str], None]
    save: Callable[[dict[str, Any]], None]
    model: str = "sky"
    precision: Precision = "fp16"
    device: str = "cuda"
    backends: tuple[str, ...] = ("tensorrt", "tensorrt-rtx", "cuda")
    variants: tuple[str, ...] = yardstick.VARIANTS
    batches: tuple[int, ...] = (1, 2, 8, 32)
    seconds: float = 2.0
    frames: int = 64
    options: PlanOptions = field(default_factory=PlanOptions)


def run(check: GpuCheck) -> dict[str, Any]:
    """Measure everything and return it; `check.save` gets it after every number.

    Raises LvdmError or OSError only for what spoils the whole run, such as a full disk.
    """
    found: dict[str, Any] = _header(check)
    bundle = bundle_of(check.model, check.precision, check.work, check.report)
    exact = bundle_of(check.model, "fp32", check.work, check.report)
    found["gflop"] = _gflop(check, bundle)
    check.save(found)
    for _ in chain(_torch(check, bundle, found), _backends(check, bundle, exact, found)):
        found["targets"] = judge(found)
        check.save(found)
    return found


def _header(check: GpuCheck) -> dict[str, Any]:
    devices = gpus(memory=True)
    return {
        "schema": SCHEMA,
        "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "model": check.model,
        "precision": check.precision,
        "device": check.device,
        "gpu": msgspec.to_builtins(devices[0]) if devices and check.device != "cpu" else None,
        "machine": platform.platform(),
        "packages": machine.packages(),
        "torch": {},
        "backends": {},
        "targets": [],
    }


def _gflop(check: GpuCheck, bundle: Bundle) -> dict[str, float]:
    """Return the work of one run at batch 1; a joint graph's manifest counts its longest clip."""
    model = bundle.manifest.model
    clip = 0 if model.predict is None else model.predict.clip
    denoiser = denoiser_graph(UNet3d(sizes(check.model).unet), ("predict",), model)
    decoder = bundle.manifest.graphs["decoder"].gflop or 0.0
    return {"predict": count_gflop(denoiser, clip), "decoder": decoder}


def _torch(check: GpuCheck, bundle: Bundle, found: dict[str, Any]) -> Iterator[None]:
    """Fill in PyTorch's numbers; yields after each."""
    yardstick.tune()
    check.report(f"matrix product on {check.device}")
    found["peak_tflops"] = attempt(_matrix_peak, check)
    yield
    modules = attempt(torch_graphs, check.model, bundle.manifest) if check.variants else {}
    timing = check.device, check.seconds
    for name in check.variants:
        entry: dict[str, Any] = {}
        found["torch"][name] = entry
        for graph in _GRAPHS:
            made: Any = failure(modules) or attempt(
                yardstick.variant, modules[graph], name, check.device
            )
            time = failure(made) or partial(yardstick.time_module, made, *timing)
            yield from _cells(check, bundle, name, graph, entry, time)
            del made, time  # before their memory is given back
            attempt(yardstick.release, check.device)


def _matrix_peak(check: GpuCheck) -> float:
    half = check.device.startswith("cuda")
    dtype, sides = (torch.float16, _SIDES) if half else (torch.float32, (512,))
    return yardstick.matrix_peak(check.device, check.seconds, dtype, sides)


def _backends(
    check: GpuCheck, bundle: Bundle, exact: Bundle, found: dict[str, Any]
) -> Iterator[None]:
    """Fill in what every backend does; yields after each number."""
    usable = attempt(backend_report)
    for name in (n for n in BACKENDS if n in check.backends):
        problem = usable["failed"] if "failed" in usable else usable[name]
        entry = found["backends"][name] = {"problem": problem}
        yield
        if problem is None:
            yield from _backend(check, (bundle, exact), name, entry)


def _backend(
    check: GpuCheck, bundles: tuple[Bundle, Bundle], name: str, entry: dict[str, Any]
) -> Iterator[None]:
    """Fill in what one backend does; whatever fails leaves its reason instead of a number."""
    bundle, exact = bundles
    check.report(f"{name}: compiling")
    wanted = _wanted(check, name)
    entry["build_seconds"] = attempt(_build, bundle, name, wanted)
    yield
    if failure(entry["build_seconds"]):
        return
    options = SessionOptions(plan=wanted)  # not one of another run with other options
    unfit = failure(attempt(check_reference, bundle, exact))
    entry["parity"] = parity = {}
    for graph in bundle.manifest.graphs:
        check.report(f"{name}: comparing {graph} with the CPU")
        parity[graph] = unfit or attempt(compare_graph, bundle, graph, name, exact, options)
        yield
    for graph in _GRAPHS:
        session = attempt(open_session, bundle, graph, name, options)
        time = failure(session) or partial(_time_session, session, check.seconds)
        yield from _cells(check, bundle, name, graph, entry, time)
        if not failure(session):
            attempt(session.close)
    check.report(f"{name}: {check.frames} frames from end to end")
    video = GenerateOptions(frames=check.frames, sampler="ddim", steps=_STEPS, batch_size=_BATCH)
    entry["end_to_end"] = attempt(end_to_end, bundle, name, video, options)
    yield


def _cells(
    check: GpuCheck, bundle: Bundle, name: str, graph: str, entry: dict[str, Any], time: Any
) -> Iterator[None]:
    """Fill in what `time` says of one graph's feeds at every batch; it may be a failure itself."""
    cells = entry[graph] = {}
    for batch in check.batches if graph == "predict" else (1,):
        check.report(f"{name}: {graph} at batch {batch}")
        feeds = attempt(random_feeds, bundle, graph, batch)
        cells[str(batch)] = failure(time, feeds) or attempt(time, feeds)
        yield


def _wanted(check: GpuCheck, backend: str) -> PlanOptions:
    """Return the options of plans; TensorRT-RTX compiles for Turing only when told to."""
    if backend == "tensorrt-rtx" and {gpu.capability for gpu in gpus()} == {TURING}:
        return msgspec.structs.replace(check.options, targets=(TURING,))
    return check.options


def _build(bundle: Bundle, backend: str, options: PlanOptions) -> float:
    built = build_plans(bundle, backend, options)
    return float(sum(b.plan.facts.seconds for b in built))


def _time_session(session: Session, seconds: float, feeds: Feeds) -> dict[str, float]:
    """Time a graph with its copies, and where the session can tell, each of both alone.

    `copies_ms` is what latents and timestep, going in, and the outputs, coming out, cost at each
    step: all that could be saved at most by leaving latents on the device.
    """

    def call() -> None:
        session.run(feeds)

    found = {"ms": median_ms(call, seconds)}
    if isinstance(session, Timed):
        found["device_ms"] = 1000 * session.device_seconds(feeds, _LAUNCHES)
        changing = [name for name in feeds if name in _CHANGING]
        found["copies_ms"] = 1000 * session.copy_seconds(feeds, changing, _LAUNCHES)
    return found
