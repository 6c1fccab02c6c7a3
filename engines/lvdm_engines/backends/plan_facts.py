"""Compiled plans described: what was asked of a build, and the sidecar that says what it gave.

Knows no engine library and no device; `trt/store.py` keeps the files.
"""

import hashlib
import re
import shlex
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta

from lvdm_engines.defaults import Count
from lvdm_engines.errors import OptionsError, quoted
from lvdm_engines.manifest import Precision, Sha256

_DIGITS = re.compile("[0-9]{1,9}")

FORMAT = 1  # of the sidecar, and of how this code compiles: raise it when either changes


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Sizes that a free dimension may take, and the one that kernels are chosen for."""

    min: Count
    opt: Count
    max: Count

    def __post_init__(self) -> None:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"got {self}, expected MIN <= OPT <= MAX")

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}"

    def __contains__(self, size: object) -> bool:
        return isinstance(size, int) and self.min <= size <= self.max

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `MIN:OPT:MAX` or one number for all three. Raises OptionsError."""
        parts = text.split(":")
        sizes = [int(part) for part in parts if _DIGITS.fullmatch(part)]
        if len(sizes) == len(parts) and len(sizes) in (1, 3):
            low, middle, high = sizes * 3 if len(sizes) == 1 else sizes
            if 1 <= low <= middle <= high:
                return cls(low, middle, high)
        raise OptionsError(
            f"got batch {quoted(text)}, expected MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, such as "
            "1:8:32"
        )


Profile = dict[str, Range]  # by the name of a free dimension


class PlanOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a caller may ask of a build.

    `batch` for denoisers and text, `pixel_batch` for encoder and decoder, whose activations are
    far larger · `refit`: weights can be exchanged later (`refit_plans`), at some cost in speed ·
    `version_compatible`: the plan outlives updates within a major version (TensorRT only; needs the
    lean runtime) · `tf32`: float32 parts of a graph may round products to 10 bits · `level`: how
    long to search for kernels, 0 to 5 · `targets`: compute capabilities of TensorRT-RTX plans, such
    as "8.6"; none stands for the library's own choice.
    """

    batch: Range = Range(1, 8, 32)
    pixel_batch: Range = Range(1, 1, 4)
    refit: bool = False
    version_compatible: bool = False
    tf32: bool = True
    level: Annotated[int, Meta(ge=0, le=5)] = 3
    targets: tuple[str, ...] = ()


class Fingerprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that decides whether a plan is the right one here.

    `gpu` and `capability` are those of the building machine, or of nothing in particular ("any")
    for plans of TensorRT-RTX, which the driver finishes on the GPU that runs them.
    """

    format: int = FORMAT
    graph: str
    library: str
    version: str
    gpu: str
    capability: str
    onnx_sha256: Sha256
    data_sha256: Sha256 | None
    precision: Precision
    profiles: tuple[Profile, ...]
    options: PlanOptions

    @property
    def digest(self) -> str:
        """A short name for the directory of the plan."""
        data = msgspec.json.encode(self, order="sorted")
        return hashlib.sha256(data).hexdigest()[:16]


class PlanFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The sidecar of a plan; `summary` is what the engine inspector says, where it could ask."""

    file: str
    sha256: Sha256
    bytes: Annotated[int, Meta(ge=1)]
    fingerprint: Fingerprint
    seconds: Annotated[float, Meta(ge=0)]
    built_at: str
    summary: dict[str, Any] = {}


def rebuild_command(
    bundle: str, backend: str, options: PlanOptions | None, *, force: bool = False
) -> str:
    """Return the command line, quoted for a shell, that compiles a bundle with these options.

    `force`: also where an equal plan exists, which is then replaced.
    """
    parts = ["lvdm-export", "build-engines", "--bundle", bundle, "--backend", backend]
    wanted, default = options or PlanOptions(), PlanOptions()
    if wanted.batch != default.batch:
        parts += ["--batch", str(wanted.batch)]
    if wanted.pixel_batch != default.pixel_batch:
        parts += ["--pixel-batch", str(wanted.pixel_batch)]
    if wanted.level != default.level:
        parts += ["--level", str(wanted.level)]
    flags = {
        "--refit": wanted.refit,
        "--version-compatible": wanted.version_compatible,
        "--no-tf32": not wanted.tf32,
        "--force": force,
    }
    parts += [flag for flag, asked in flags.items() if asked]
    for target in wanted.targets:
        parts += ["--target", target]
    return shlex.join(parts)
