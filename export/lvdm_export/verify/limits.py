"""Which errors are allowed, and what was measured of a backend on one graph."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from lvdm_engines.backends.backend import Rounding
from lvdm_engines.manifest import Precision
from lvdm_engines.session import Session


@dataclass(frozen=True)
class Limits:
    """The largest errors allowed, relative to the reference; PSNR in dB of decoded frames.

    `recorded`: of the CPU from the answers of torch, which single precision reaches but for the
    order of summation · `mean`, `most` and `psnr`: of a backend from the CPU. Half precision rounds
    to 11 bits, TF32 products to 10 and bfloat16 to 8; single values err far more than the mean,
    which is why both are limited.
    """

    recorded: float
    mean: float
    most: float
    psnr: float


LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(recorded=1e-4, mean=2e-3, most=1e-2, psnr=45.0),
    "fp16": Limits(recorded=1e-2, mean=5e-3, most=5e-2, psnr=38.0),
}
BF16 = Limits(recorded=6e-2, mean=3e-2, most=6e-2, psnr=45.0)


def limits_of(session: Session, precision: Precision) -> Limits:
    """Return the limits of an open graph: its own precision's, or those of what it rounds to."""
    rounds = isinstance(session, Rounding) and session.precision == "bf16"
    return BF16 if rounds else LIMITS[precision]


@dataclass(frozen=True)
class Comparison:
    """What was measured on one graph.

    `batches` that ran, and the one that memory was too small for · `mean` and `most`: mean and
    largest error, relative to the reference's mean and largest magnitude · `psnr` of frames ·
    `equal_rows`: whether equal rows stay equal wherever a batch is one run · `batch`: largest
    difference of one row between batches · `searched`: how overflow was looked for · `finite_to`:
    largest scale of the inputs up to which the backend stays finite, or its frames stay those of
    the CPU, wherever the reference is finite.
    """

    batches: tuple[int, ...]
    no_memory_at: int | None
    mean: float
    most: float
    psnr: float | None
    equal_rows: bool
    batch: float
    searched: str
    finite_to: float
    overflows_at: float | None

    def problems(self, limits: Limits) -> list[str]:
        """Return what is outside the limits, in words."""
        found = []
        if self.no_memory_at is not None:
            found.append(f"out of memory at batch {self.no_memory_at}")
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

    def entry(self) -> dict[str, Any]:
        """Return the numbers as JSON takes them; NaN and infinity become words."""
        return {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }
