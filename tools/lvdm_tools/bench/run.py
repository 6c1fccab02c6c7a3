"""Everything that only a GPU can show, measured in one run: `lvdm-tools gpu-check`.

Which backends work, how far they are from float32 on the CPU, milliseconds per denoiser step and
decoded clip beside PyTorch on the same device, and frames per second from end to end. What fails
or cannot run is recorded as such, beside what can.
"""

from __future__ import annotations

import datetime as dt
import platform
import traceback
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from lvdm_engines.backends.backend import BACKENDS, SessionOptions, Timed
from lvdm_engines.backends.gpu.driver import gpus
from lvdm_engines.backends.plan_facts import PlanOptions
from lvdm_engines.backends.trt.build import build_plans
from lvdm_engines.backends.trt.compile import TURING
from lvdm_engines.errors import LvdmError
from lvdm_engines.opening import backend_report, open_session
from lvdm_export.graph.export import count_gflop
from lvdm_export.graph.graphs import denoiser_graph
from lvdm_export.nets.unet3d import UNet3d
from lvdm_export.verify.backends import check_reference, compare_graph
from lvdm_export.verify.probes import make_probes
from lvdm_tools.bench import torch_baseline as yardstick
from lvdm_tools.bench.end_to_end import end_to_end
from lvdm_tools.bench.models import bundle_of, sizes, torch_graphs
from lvdm_tools.bench.table import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from lvdm_engines.bundle import Bundle
    from lvdm_engines.manifest import Precision
    from lvdm_engines.session import Session

SCHEMA = 2
_PACKAGES = (
    "numpy",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-core",
)
_LAUNCHES = 20  # per timing of the device or of copies alone
_CHANGING = ("latents", "timestep")  # at every step; what else a denoiser reads stays for a clip
_TRACE = 4  # parts of a traceback that are kept

Feeds = dict[str, "NDArray[Any]"]


@dataclass(frozen=True)
class Check:
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


def run(check: Check) -> dict[str, Any]:
    """Measure everything and return it; `check.save` gets it after every number.

    Raises LvdmError or OSError only for what spoils the whole run, such as a full disk.
    """
    found: dict[str, Any] = _header(check)
    bundle = bundle_of(check.model, check.precision, check.work, check.report)
    exact = bundle_of(check.model, "fp32", check.work, check.report)
    found["gflop"] = _gflop(check, bundle)
    check.save(found)
    for step in (_torch(check, bundle, found), _backends(check, bundle, exact, found)):
        for _ in step:
            found["targets"] = judge(found)
            check.save(found)
    return found


def _header(check: Check) -> dict[str, Any]:
    devices = gpus(memory=True)
    return {
        "schema": SCHEMA,
        "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "model": check.model,
        "precision": check.precision,
        "device": check.device,
        "gpu": msgspec.to_builtins(devices[0]) if devices and check.device != "cpu" else None,
        "machine": platform.platform(),
        "packages": {name: v for name in _PACKAGES if (v := _version(name))},
        "torch": {},
        "backends": {},
        "targets": [],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gflop(check: Check, bundle: Bundle) -> dict[str, float]:
    """Return the work of one run at batch 1; a joint graph's manifest counts its longest clip."""
    model = bundle.manifest.model
    clip = 0 if model.predict is None else model.predict.clip
    denoiser = denoiser_graph(UNet3d(sizes(check.model).unet), ("predict",), model)
    decoder = bundle.manifest.graphs["decoder"].gflop or 0.0
    return {"predict": count_gflop(denoiser, clip), "decoder": decoder}


def _torch(check: Check, bundle: Bundle, found: dict[str, Any]) -> Iterator[None]:
    """Fill in PyTorch's numbers; yields after each."""
    yardstick.tune()
    check.report(f"matrix product on {check.device}")
    found["peak_tflops"] = _attempt(yardstick.matrix_peak, check.device, check.seconds)
    yield
    modules = _attempt(torch_graphs, check.model, bundle.manifest) if check.variants else {}
    for name in check.variants:
        entry: dict[str, Any] = {}
        found["torch"][name] = entry
        for graph, batches in _runs(check):
            cells = entry[graph] = {}
            try:
                yield from _variant(check, bundle, (name, graph, batches), modules, cells)
            finally:
                _attempt(yardstick.release, check.device)


def _variant(
    check: Check,
    bundle: Bundle,
    which: tuple[str, str, tuple[int, ...]],
    modules: dict[str, Any],
    cells: dict[str, Any],
) -> Iterator[None]:
    """Time one graph in one variant of PyTorch, which is let go of at the end."""
    name, graph, batches = which
    made = modules if "failed" in modules else None
    made = made or _attempt(yardstick.variant, modules[graph], name, check.device)
    for batch in batches:
        check.report(f"{name}: {graph} at batch {batch}")
        feeds = _attempt(_feeds, graph, bundle, batch)
        arguments = (made, feeds, check.device, check.seconds)
        cells[str(batch)] = _failure(made, feeds) or _attempt(yardstick.time_module, *arguments)
        yield


def _runs(check: Check) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return ("predict", check.batches), ("decoder", (1,))


def _backends(check: Check, bundle: Bundle, exact: Bundle, found: dict[str, Any]) -> Iterator[None]:
    """Fill in what every backend does; yields after each number."""
    usable = _attempt(backend_report)
    for name in (n for n in BACKENDS if n in check.backends):
        problem = usable["failed"] if "failed" in usable else usable[name]
        entry: dict[str, Any] = {"problem": problem}
        found["backends"][name] = entry
        yield
        if problem is None:
            yield from _backend(check, (bundle, exact), name, entry)


def _backend(
    check: Check, bundles: tuple[Bundle, Bundle], name: str, entry: dict[str, Any]
) -> Iterator[None]:
    """Fill in what one backend does; whatever fails leaves its reason instead of a number."""
    bundle, exact = bundles
    check.report(f"{name}: compiling")
    wanted = _wanted(check, name)
    entry["build_seconds"] = _attempt(_build, bundle, name, wanted)
    yield
    if _failure(entry["build_seconds"]):
        return
    options = SessionOptions(plan=wanted)  # not one of another run with other options
    unfit = _failure(_attempt(check_reference, bundle, exact))
    entry["parity"] = parity = {}
    for graph in bundle.manifest.graphs:
        check.report(f"{name}: comparing {graph} with the CPU")
        arguments = (bundle, graph, name, exact, options)
        parity[graph] = unfit or _attempt(compare_graph, *arguments)
        yield
    for graph, batches in _runs(check):
        cells = entry[graph] = {}
        session = _attempt(open_session, bundle, graph, name, options)
        for batch in batches:
            check.report(f"{name}: {graph} at batch {batch}")
            feeds = _attempt(_feeds, graph, bundle, batch)
            cells[str(batch)] = _failure(session, feeds) or _attempt(
                _time_session, session, feeds, check.seconds
            )
            yield
        if not _failure(session):
            _attempt(session.close)
    check.report(f"{name}: {check.frames} frames from end to end")
    entry["end_to_end"] = _attempt(end_to_end, bundle, name, check.frames, options)
    yield


def _wanted(check: Check, backend: str) -> PlanOptions:
    """Return the options of plans; TensorRT-RTX compiles for Turing only when told to."""
    if backend == "tensorrt-rtx" and {gpu.capability for gpu in gpus()} == {TURING}:
        return msgspec.structs.replace(check.options, targets=(TURING,))
    return check.options


def _build(bundle: Bundle, backend: str, options: PlanOptions) -> float:
    built = build_plans(bundle, backend, options)
    return float(sum(b.plan.facts.seconds for b in built))


def _time_session(session: Session, feeds: Feeds, seconds: float) -> dict[str, float]:
    """Time a graph with its copies, and where the session can tell, each of both alone.

    `copies_ms` is what latents and timestep, going in, and the outputs, coming out, cost at each
    step: all that could be saved at most by leaving latents on the device.
    """

    def call() -> None:
        session.run(feeds)

    found = {"ms": yardstick.median_ms(call, seconds)}
    if isinstance(session, Timed):
        found["device_ms"] = 1000 * session.device_seconds(feeds, _LAUNCHES)
        changing = [name for name in feeds if name in _CHANGING]
        found["copies_ms"] = 1000 * session.copy_seconds(feeds, changing, _LAUNCHES)
    return found


def _feeds(graph: str, bundle: Bundle, batch: int) -> Feeds:
    facts = bundle.manifest.graphs[graph]
    probe = make_probes(graph, facts.inputs, bundle.manifest.model, 1)[0]
    row = np.zeros(batch, np.int64)  # the random row, as often as needed
    return {name: array[row] for name, array in probe.feeds.items()}


def _attempt(measure: Callable[..., Any], *arguments: Any) -> Any:
    """Return a measurement, or why there is none: one failure must not hide the others."""
    try:
        return measure(*arguments)
    except LvdmError as err:
        return {"failed": str(err)[:300]}
    except Exception as err:  # noqa: BLE001 - bindings that never ran here may raise anything
        line = (str(err).strip().splitlines() or ["no reason given"])[0]
        trace = traceback.format_exception(err)[-_TRACE:]
        return {"failed": f"{type(err).__name__}: {line}"[:300], "trace": "".join(trace)}


def _failure(*found: Any) -> dict[str, Any] | None:
    """Return the first of these that is a failure of `_attempt`, if any."""
    return next((f for f in found if isinstance(f, dict) and "failed" in f), None)


def write(text: str, path: Path) -> None:
    """Write a report, whole or not at all."""
    partial = path.with_suffix(f"{path.suffix}.partial")
    partial.write_text(text)
    partial.replace(path)
