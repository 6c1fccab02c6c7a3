"""A backend against ONNX Runtime in float32 on the CPU, graph by graph, on the same inputs.

What a comparison with recorded answers cannot show: batches other than the one that kernels were
chosen for, the error in decoded pixels, and how far activations may grow before half precision
overflows. Knows nothing of torch.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import Profiled, SessionOptions
from lvdm_engines.backends.trt.profiles import BATCH, fits
from lvdm_engines.bundle import Bundle
from lvdm_engines.errors import (
    BackendError,
    DeviceMemoryError,
    ExportError,
    LvdmError,
    OptionsError,
)
from lvdm_engines.manifest import Precision
from lvdm_engines.opening import load_backend, open_session
from lvdm_engines.session import Session, sizes_of
from lvdm_export.verify.limits import Comparison, limits_of
from lvdm_export.verify.probes import DISTINCT, Feeds, Probe, answer_of, probes_of

BATCHES = (1, 2, 3, 5)  # mostly not the size that kernels were chosen for
SCALES = (4.0, 16.0, 64.0)  # of the latents, in the search for overflow
_COSTLY = 100.0  # GFLOP per run above which the CPU computes as few rows as possible
_SCALED = ("latents", "context")
_LOST = 20.0  # dB: frames of an overflow are far below, those of rounding far above
_EQUAL = 999.0  # dB, said of equal frames, since JSON has no infinity


def compare_bundle(
    bundle: Bundle,
    backend: str,
    report: Callable[[str], None],
    reference: Bundle | None = None,
    options: SessionOptions | None = None,
) -> dict[str, dict[str, Any]]:
    """Compare every graph of a bundle on a backend with the CPU; returns the numbers by graph.

    Each graph has its `problems`, none where it is within the limits; a graph that cannot be opened
    or run has those alone, and the others are measured all the same. See `compare_graph`.

    Raises BackendError for a backend that this machine cannot run at all, OptionsError for a
    reference that is not the float32 export of the same model.
    """
    check_backend(backend)
    if reference is not None:
        check_reference(bundle, reference)
    measured: dict[str, dict[str, Any]] = {}
    for name in bundle.manifest.graphs:
        report(f"{name}: comparing {backend} with the CPU")
        try:
            measured[name] = compare_graph(bundle, name, backend, reference, options)
        except LvdmError as err:
            measured[name] = {"problems": [str(err)]}
    return measured


def check_report(measured: Mapping[str, Mapping[str, Any]], bundle: Bundle, backend: str) -> None:
    """Raise ExportError, with all their problems, if graphs of a finished comparison have any."""
    problems = [f"{name}: {told}" for name, found in measured.items() for told in found["problems"]]
    if problems:
        raise ExportError(
            f"{bundle.path} on {backend}: {'; '.join(problems)}; where numbers are outside their "
            "limits, export with --precision fp32 or build with --no-tf32"
        )


def check_backend(backend: str) -> None:
    """Refuse a backend that can run no graph here. Raises BackendError with the way to fix it."""
    if backend == "auto":  # always finds one
        return
    problem = load_backend(backend).unusable()
    if problem is not None:
        raise BackendError(f"{backend} is not usable: {problem}")


def check_reference(bundle: Bundle, reference: Bundle) -> None:
    """Refuse a reference that is not the float32 export of the same model. Raises OptionsError."""
    for name, facts in bundle.manifest.graphs.items():
        other = reference.manifest.graphs.get(name)
        if other is None:
            problem = f"it has no graph {name!r}"
        elif other.precision != "fp32":
            problem = f"its graph {name!r} is {other.precision}"
        elif (other.inputs, other.outputs) != (facts.inputs, facts.outputs):
            problem = f"its graph {name!r} has other tensors"
        else:
            continue
        raise OptionsError(
            f"{reference.path}: got a reference that cannot serve {bundle.path}: {problem}; "
            "expected the --precision fp32 export of the same checkpoints"
        )


def compare_graph(
    bundle: Bundle,
    name: str,
    backend: str,
    reference: Bundle | None = None,
    options: SessionOptions | None = None,
) -> dict[str, Any]:
    """Compare one graph; `reference` may be the float32 export of a half precision bundle.

    Without it the bundle's own graph is the reference, which the CPU computes in float32 with the
    rounded weights; `against` says which it was. Raises LvdmError where it cannot be opened or run.
    """
    facts = bundle.manifest.graphs[name]
    probe = probes_of(bundle.manifest, name, 1)[0]
    costly = (facts.gflop or 0.0) > _COSTLY
    with (
        open_session(reference or bundle, name, "cpu") as cpu,
        open_session(bundle, name, backend, options) as session,
    ):
        found = compare(session, cpu, probe, SCALES[1:2] if costly else SCALES)
        limits = limits_of(session, facts.precision)
    return {
        "against": _against(facts.precision, reference),
        **found.entry(),
        "problems": found.problems(limits),
    }


def _against(precision: Precision, reference: Bundle | None) -> str:
    if reference is not None:
        return f"onnxruntime cpu, float32 weights of {reference.manifest.name}"
    if precision == "fp16":
        return "onnxruntime cpu in float32, but with this bundle's own fp16 weights"
    return "onnxruntime cpu, the same float32 weights"


def compare(
    session: Session, cpu: Session, probe: Probe, scales: tuple[float, ...] = SCALES
) -> Comparison:
    """Compare one open graph with its reference."""
    rows = probe.rows(0, DISTINCT)
    expected = answer_of(cpu, rows)
    batches, largest = _batches(session, rows)
    answers, lacking = _answers(session, rows, batches)
    wanted = [_tile(expected, len(answer)) for answer in answers]
    pixels = session.outputs[0].dtype == "uint8"
    searched, finite_to, overflows_at = _overflow(session, cpu, probe.rows(0, 1), scales)
    if not all(np.isfinite(answer).all() for answer in answers):
        finite_to, overflows_at = 0.0, 1.0
    both = max(answers, key=len)[:DISTINCT]
    return Comparison(
        batches=tuple(map(len, answers)),
        no_memory_at=lacking,
        mean=max(_mean_error(a, w) for a, w in zip(answers, wanted, strict=True)),
        most=max(_largest_error(a, w) for a, w in zip(answers, wanted, strict=True)),
        psnr=min(map(_psnr, answers, wanted)) if pixels else None,
        equal_rows=all(_rows_repeat(answer) for answer in answers if len(answer) <= largest),
        batch=max(_largest_error(a, _tile(both, len(a))) for a in answers),
        searched=searched,
        finite_to=finite_to,
        overflows_at=overflows_at,
    )


def _batches(session: Session, rows: Feeds) -> tuple[tuple[int, ...], float]:
    """Return the batches to try, and the largest that the session computes in one run.

    A compiled graph is tried one above the optimum and at the largest of each of its profiles, and
    above the largest of all, where it runs in parts.
    """
    others = sizes_of(session.inputs, {name: array.shape for name, array in rows.items()})
    others.pop(BATCH, None)
    profiles = session.profiles if isinstance(session, Profiled) else ()
    ranges = [p[BATCH] for p in profiles if BATCH in p and fits(p, others)]
    if not ranges:
        return BATCHES, math.inf
    largest = max(r.max for r in ranges)
    wanted = {*BATCHES, *(r.opt + 1 for r in ranges), *(r.max for r in ranges), DISTINCT * largest}
    # the largest runs in parts, each as large as the largest run; those below a minimum are padded
    tried = {n for n in wanted if n == DISTINCT * largest or n <= largest}
    return tuple(sorted(tried)), largest


def _answers(
    session: Session, rows: Feeds, batches: tuple[int, ...]
) -> tuple[list[NDArray[np.float64]], int | None]:
    """Run all batches, or those before the one that memory is too small for, and say which."""
    answers: list[NDArray[np.float64]] = []
    for size in batches:
        try:
            answers.append(answer_of(session, {n: _tile(a, size) for n, a in rows.items()}))
        except DeviceMemoryError:
            if not answers:
                raise
            return answers, size
    return answers, None


def _overflow(
    session: Session, cpu: Session, row: Feeds, scales: tuple[float, ...]
) -> tuple[str, float, float | None]:
    """Scale float inputs up until the backend overflows where the CPU does not.

    Floats then hold NaN or infinity. Pixels cannot: there, frames far from the CPU's tell.
    """
    names = [name for name in _SCALED if name in row]
    if not names:
        return "not applicable: pixels and tokens cannot grow", 1.0, None
    pixels = session.outputs[0].dtype == "uint8"
    sign = f"frames below {_LOST:.0f} dB" if pixels else "NaN or infinity"
    searched = f"{sign} at {', '.join(f'{s:g}' for s in scales)} times the {' and '.join(names)}"
    finite_to = 1.0
    for scale in scales:
        feeds = row | {name: row[name] * np.float32(scale) for name in names}
        expected = answer_of(cpu, feeds)
        if not np.isfinite(expected).all():
            break
        got = answer_of(session, feeds)
        if _psnr(got, expected) < _LOST if pixels else not np.isfinite(got).all():
            return searched, finite_to, scale
        finite_to = scale
    return searched, finite_to, None


def _tile(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Repeat rows in turn up to a batch of `size`."""
    return array[np.arange(size) % len(array)]


def _rows_repeat(answer: NDArray[Any]) -> bool:
    return np.array_equal(answer[DISTINCT:], answer[:-DISTINCT], equal_nan=True)


def _mean_error(answer: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(answer - expected).mean() / max(np.abs(expected).mean(), 1e-12))


def _largest_error(answer: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(answer - expected).max() / max(np.abs(expected).max(), 1e-12))


def _psnr(answer: NDArray[Any], expected: NDArray[Any]) -> float:
    error = float(np.square(answer - expected).mean())
    return _EQUAL if error == 0 else 10 * math.log10(255.0**2 / error)
