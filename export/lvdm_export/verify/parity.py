"""How far a graph in an engine is from the network it came from, and whether it behaves.

Works on answers to probes: those of torch when a bundle is built, later a sample of them that
the bundle keeps, so that a finished bundle can be tried again without its checkpoint: its probes
are made anew by their rule. Knows nothing of torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from lvdm_engines.atomic import read_file
from lvdm_engines.bundle import MANIFEST, REFERENCES, Bundle
from lvdm_engines.errors import BundleError, ExportError, one_line
from lvdm_engines.manifest import MOST_VALUES, Precision
from lvdm_engines.opening import open_session
from lvdm_engines.session import Session
from lvdm_export.verify.limits import LIMITS
from lvdm_export.verify.probes import DISTINCT, VERSION, Probe, answer_of, probes_of

_GREY_LEVEL = 1 / 255  # a value halfway between two levels may round either way
_SAMPLES = 48  # answers kept per probe
_PROBES = 8  # at most; an export makes two


class _Sampled(msgspec.Struct, frozen=True):
    """What a bundle keeps of the answers."""

    size: Annotated[int, Meta(ge=1, le=MOST_VALUES)]
    peaks: list[Annotated[float, Meta(ge=0)]]
    values: Annotated[list[list[float]], Meta(min_length=1, max_length=_PROBES)]


@dataclass(frozen=True)
class Reference:
    """Answers of the original network: values at `places` of the flattened output of each probe."""

    places: int
    peaks: list[float]
    values: list[NDArray[Any]]

    @classmethod
    def complete(cls, answers: Sequence[NDArray[Any]]) -> Self:
        """Use whole outputs (distinct rows only), one per probe."""
        flat = [np.asarray(a, np.float64).ravel() for a in answers]
        return cls(flat[0].size, [float(np.abs(a).max()) for a in flat], flat)

    @classmethod
    def recorded(cls, kept: object) -> Self | None:
        """Read what `sampled` wrote, or None where it is absent or from another rule.

        Raises ValueError or msgspec.ValidationError where it is of another shape.
        """
        if not isinstance(kept, dict) or kept.get("rule") != VERSION:
            return None
        read = msgspec.convert(kept, _Sampled)
        values = [np.asarray(v, np.float64) for v in read.values]
        wanted = min(read.size, _SAMPLES)
        if len(values) != len(read.peaks) or any(v.size != wanted for v in values):
            raise ValueError(f"expected {wanted} values and a peak for every probe")
        return cls(read.size, read.peaks, values)

    def sampled(self) -> dict[str, Any]:
        """Return a small, evenly spread part for the bundle."""
        kept = [[float(f"{x:.7g}") for x in v[_places(self.places)]] for v in self.values]
        return {"rule": VERSION, "size": self.places, "peaks": self.peaks, "values": kept}

    def difference(self, index: int, answer: NDArray[Any]) -> float:
        """Return the largest difference of an answer to probe `index`, relative to its peak."""
        flat = np.asarray(answer, np.float64).ravel()
        if flat.size != self.places:
            raise ExportError(f"got an output of {flat.size} values, expected {self.places}")
        expected = self.values[index]
        if expected.size != flat.size:
            flat = flat[_places(flat.size)]
        return float(np.abs(flat - expected).max() / max(self.peaks[index], 1e-12))


def _places(size: int) -> NDArray[np.int64]:
    return np.linspace(0, size - 1, min(size, _SAMPLES)).astype(np.int64)


@dataclass(frozen=True)
class Parity:
    """What was measured on one graph; differences are relative to the output's peak."""

    max_rel: float | None
    equal_rows: float
    batch: float
    levels: int | None

    def with_difference(self, apart: float, peak: float) -> Self:
        """Add another answer that is `apart` from the reference's, relative to its `peak`."""
        levels = None if self.levels is None else max(self.levels, round(apart * peak))
        return replace(self, max_rel=max(apart, self.max_rel or 0.0), levels=levels)

    def entry(self, against: str) -> dict[str, Any]:
        """Return the numbers for the manifest's parity report."""
        found: dict[str, Any] = {
            "max_rel": None if self.max_rel is None else float(f"{self.max_rel:.3g}"),
            "against": against,
            "batches": [1, 3],
            "equal_rows": float(f"{self.equal_rows:.3g}"),
            "batch_1_against_3": float(f"{self.batch:.3g}"),
        }
        if self.levels is not None:
            found["grey_levels"] = self.levels
        return found


def measure(session: Session, probes: Sequence[Probe], reference: Reference | None) -> Parity:
    """Run all probes in a batch of three and the random rows alone.

    Raises ExportError: an output holds NaN or infinity.
    """
    pixels = session.outputs[0].dtype == "uint8"
    against, rows, batch, levels = 0.0, 0.0, 0.0, 0
    for index, probe in enumerate(probes):
        whole = answer_of(session, probe.feeds)
        alone = answer_of(session, probe.rows(0, 1))
        if not (np.isfinite(whole).all() and np.isfinite(alone).all()):
            raise ExportError(f"{session.outputs[0].name} holds NaN or infinity on probe {index}")
        peak = max(float(np.abs(whole).max()), 1e-12)
        rows = max(rows, float(np.abs(whole[2] - whole[0]).max()) / peak)
        batch = max(batch, float(np.abs(whole[:1] - alone).max()) / peak)
        if reference is not None:
            found = reference.difference(index, whole[:DISTINCT])
            against = max(against, found)
            levels = max(levels, round(found * reference.peaks[index]))
    return Parity(None if reference is None else against, rows, batch, levels if pixels else None)


def check(name: str, parity: Parity, precision: Precision) -> None:
    """Compare with the tolerances of a precision.

    Raises ExportError: which measure is outside, its value and its limit.
    """
    limit = LIMITS[precision].recorded + (0.0 if parity.levels is None else _GREY_LEVEL)
    for what, value, most in (
        ("differs from torch by", parity.max_rel or 0.0, limit),
        ("gives a row alone and in a batch of 3 different results by", parity.batch, limit),
        ("gives equal rows of a batch different results by", parity.equal_rows, 0.0),
    ):
        if value > most:
            raise ExportError(
                f"{name} {what} {value:.2g} of its largest value, expected at most {most:.2g}; "
                "export in fp32, or report the model's config"
            )


def verify_bundle(bundle: Bundle, report: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Check files, numerics and batching of every graph on the CPU; returns the numbers by graph.

    Raises BundleError: a damaged graph or record; BackendError: the CPU cannot run it here;
    ExportError: a graph is outside its tolerance; all graphs that fail are named.
    """
    measured: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    references = read_references(bundle)
    for name, facts in bundle.manifest.graphs.items():
        report(f"{name}: running on cpu")
        reference = references.get(name)
        count = 1 if reference is None else len(reference.values)
        probes = probes_of(bundle.manifest, name, count)
        with open_session(bundle, name, "cpu") as session:
            try:
                told = measure(session, probes, reference)
                check(name, told, facts.precision)
            except ExportError as err:
                problems.append(str(err))
                continue
        against = "torch fp32, as recorded" if reference else "nothing recorded"
        measured[name] = told.entry(against)
    if problems:
        raise ExportError(f"{bundle.path}: {'; '.join(problems)}")
    return measured


def read_references(bundle: Bundle) -> dict[str, Reference | None]:
    """Return torch's answers by graph, as far as any were recorded; older manifests hold them.

    Raises BundleError where they cannot be read.
    """
    path = bundle.path / REFERENCES
    there = path.exists()
    try:
        if there:
            kept = msgspec.json.decode(read_file(path), type=dict[str, Any])
        else:
            kept = {name: told.get("reference") for name, told in bundle.manifest.parity.items()}
        return {name: Reference.recorded(answers) for name, answers in kept.items()}
    except (OSError, ValueError, msgspec.DecodeError, RecursionError) as err:
        raise BundleError(
            f"{path if there else bundle.path / MANIFEST}: the recorded answers are damaged "
            f"({one_line(str(err), 160)}); export the bundle again"
        ) from err
