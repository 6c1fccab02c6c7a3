"""A backend against ONNX Runtime in float32 on the CPU, graph by graph, on the same inputs.

What a comparison with recorded answers cannot show: batches other than the one that kernels were
chosen for, the error in decoded pixels, and how far activations may grow before half precision
overflows. Knows nothing of torch.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.registry import SessionOptions
from lvdm_engines.bundle import Bundle, GraphSource
from lvdm_engines.errors import ExportError
from lvdm_engines.manifest import Precision
from lvdm_engines.session import Session, open_session
from lvdm_export.probes import DISTINCT, Feeds, make_probes

BATCHES = (1, 2, 3, 5)  # mostly not the size that kernels were chosen for
SCALES = (4.0, 16.0, 64.0)  # of the latents, in the search for overflow
_COSTLY = 100.0  # GFLOP per run above which the CPU computes as few rows as possible
_SCALED = ("latents", "context")


@dataclass(frozen=True)
class Limits:
    """The largest errors allowed, relative to the reference; PSNR in dB of decoded frames.

    Half precision rounds to 11 bits and TF32 products to 10; single values err far more than the
    mean, which is why both are limited.
    """

    mean: float
    most: float
    psnr: float


LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(mean=2e-3, most=1e-2, psnr=45.0),
    "fp16": Limits(mean=5e-3, most=5e-2, psnr=38.0),
}


@dataclass(frozen=True)
class Comparison:
    """What was measured on one graph.

    `mean` and `most`: mean and largest error, relative to the reference's mean and largest
    magnitude · `psnr` of frames · `equal_rows`: whether equal rows of a batch stay equal · `batch`:
    largest difference of one row between batches · `finite_to`: largest tried scale of the inputs
    up to which the backend stays finite wherever the reference does.
    """

    mean: float
    most: float
    psnr: float | None
    equal_rows: bool
    batch: float
    finite_to: float
    overflows_at: float | None

    def problems(self, limits: Limits) -> list[str]:
        """Return what is outside the limits, in words."""
        found = []
        if not self.mean <= limits.mean:
            found.append(f"mean error {self.mean:.2g}, expected at most {limits.mean:.2g}")
        if not self.most <= limits.most:
            found.append(f"largest error {self.most:.2g}, expected at most {limits.most:.2g}")
        if self.psnr is not None and self.psnr < limits.psnr:
            found.append(f"frames at {self.psnr:.1f} dB, expected {limits.psnr:.0f} or more")
        if not self.equal_rows:
            found.append("equal rows of a batch come out different")
        if not self.batch <= limits.most:
            found.append(f"a row differs by {self.batch:.2g} between batches")
        if self.overflows_at == 1.0:
            found.append("NaN or infinity on ordinary inputs")
        return found


def compare_bundle(
    bundle: Bundle,
    backend: str,
    report: Callable[[str], None],
    reference: Bundle | None = None,
    options: SessionOptions | None = None,
) -> dict[str, dict[str, Any]]:
    """Compare every graph of a bundle on a backend with the CPU; returns the numbers by graph.

    `reference` may be the float32 export of a half precision bundle; without it, the bundle's own
    graphs are the reference, which the CPU computes in float32 with the rounded weights.

    Raises:
        BackendError: the backend cannot run here.
        ExportError: graphs outside the limits, all of them named.

    """
    measured: dict[str, dict[str, Any]] = {}
    problems = []
    for name, facts in bundle.manifest.graphs.items():
        report(f"{name}: comparing {backend} with the CPU")
        source = bundle.graph(name)
        with (
            open_session(reference or bundle, name, "cpu") as cpu,
            open_session(bundle, name, backend, options) as session,
        ):
            found = compare(session, cpu, source, bundle)
        measured[name] = {"against": "onnxruntime cpu", **asdict(found)}
        outside = found.problems(LIMITS[facts.precision])
        problems += [f"{name}: {problem}" for problem in outside]
    if problems:
        raise ExportError(
            f"{bundle.path} on {backend}: {'; '.join(problems)}; export with --precision fp32, or "
            "build with --no-tf32"
        )
    return measured


def compare(session: Session, cpu: Session, source: GraphSource, bundle: Bundle) -> Comparison:
    """Compare one open graph with its reference."""
    costly = (source.facts.gflop or 0.0) > _COSTLY
    probe = make_probes(source.name, source.facts.inputs, bundle.manifest.model, 1)[0]
    rows = probe.rows(0, DISTINCT)
    expected = _output(cpu, rows)
    answers = [_output(session, _tiled(rows, size)) for size in BATCHES]
    wanted = [_tile(expected, size) for size in BATCHES]
    pixels = session.outputs[0].dtype == "uint8"
    scales = SCALES[1:2] if costly else SCALES
    finite_to, overflows_at = _overflow(session, cpu, probe.rows(0, 1), scales)
    if not all(np.isfinite(answer).all() for answer in answers):
        finite_to, overflows_at = 0.0, 1.0
    return Comparison(
        mean=max(_mean_error(a, w) for a, w in zip(answers, wanted, strict=True)),
        most=max(_largest_error(a, w) for a, w in zip(answers, wanted, strict=True)),
        psnr=min(map(_psnr, answers, wanted)) if pixels else None,
        equal_rows=all(_rows_repeat(answer) for answer in answers),
        batch=max(_largest_error(a[:1], answers[0]) for a in answers),
        finite_to=finite_to,
        overflows_at=overflows_at,
    )


def _overflow(
    session: Session, cpu: Session, row: Feeds, scales: tuple[float, ...]
) -> tuple[float, float | None]:
    """Scale float inputs up until the backend gives NaN or infinity where the CPU does not."""
    if session.outputs[0].dtype == "uint8" or not any(name in row for name in _SCALED):
        return 1.0, None  # pixels cannot hold what this looks for
    finite_to = 1.0
    for scale in scales:
        feeds = {
            name: (array * np.float32(scale) if name in _SCALED else array)
            for name, array in row.items()
        }
        if not np.isfinite(_output(cpu, feeds)).all():
            break
        if not np.isfinite(_output(session, feeds)).all():
            return finite_to, scale
        finite_to = scale
    return finite_to, None


def _output(session: Session, feeds: Feeds) -> NDArray[np.float64]:
    name = session.outputs[0].name
    return np.asarray(session.run(feeds)[name], np.float64)


def _tiled(rows: Feeds, size: int) -> Feeds:
    return {name: _tile(array, size) for name, array in rows.items()}


def _tile(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Repeat rows in turn up to a batch of `size`."""
    return array[np.arange(size) % len(array)]


def _rows_repeat(answer: NDArray[Any]) -> bool:
    return all(
        np.array_equal(answer[k], answer[k - DISTINCT], equal_nan=True)
        for k in range(DISTINCT, len(answer))
    )


def _mean_error(answer: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(answer - expected).mean() / max(np.abs(expected).mean(), 1e-12))


def _largest_error(answer: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(answer - expected).max() / max(np.abs(expected).max(), 1e-12))


def _psnr(answer: NDArray[Any], expected: NDArray[Any]) -> float:
    error = float(np.square(answer - expected).mean())
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)
