"""What a bundle says about itself: the frozen structs behind `manifest.json`.

Knows the format and what is impossible in it; knows nothing of JSON, files or devices.
"""

import math
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lvdm_engines.defaults import Count, Defaults
from lvdm_engines.errors import quoted
from lvdm_engines.preview_map import PreviewMap

SCHEMA = 1
TAUGHT = ("predict", "interpolate", "short")  # denoisers of one kind of clip
DENOISERS = ("short", "predict", "interpolate", "distilled")
GRAPH_NAMES = ("encoder", "decoder", *DENOISERS, "text_encoder")
TOKENIZER = "tokenizer.json"  # its name in every bundle that reads text

Length = Annotated[int, Meta(ge=1, le=4096)]  # of clips, windows and strides
Side = Annotated[int, Meta(ge=1, le=16384)]
Size = tuple[Side, Side]  # (height, width)
MOST_VALUES = 1 << 32  # in the pixels or latents of one window
LEAST_BETA, MOST_NOISE = 1e-7, 100  # beyond, float32 holds no noise, or no signal
Text = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,200}$(?!\n)")]  # one line to show
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
ScheduleKind = Literal["sqrt-linear", "linear", "cosine"]
Precision = Literal["fp32", "fp16"]
Dtype = Literal["float32", "float16", "int64", "int32", "uint8", "bool"]


class LatentFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape and normalisation of latents: diffusion space is scale * (posterior mean + shift)."""

    channels: Count
    size: Size
    scale: float
    shift: float

    def __post_init__(self) -> None:
        if self.scale == 0 or not math.isfinite(self.scale) or not math.isfinite(self.shift):
            raise ValueError(
                f"scale {self.scale} and shift {self.shift} must be finite, scale not 0"
            )


class ScheduleFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The training noise schedule; 'sqrt-linear' is linear in the square root of beta.

    `zero_snr` says that it was rescaled to end in nothing but noise.
    """

    kind: ScheduleKind
    steps: Count
    beta_start: float
    beta_end: float
    zero_snr: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(
                f"got beta_start {self.beta_start}, beta_end {self.beta_end}, "
                "expected 0 < beta_start <= beta_end < 1"
            )
        if self.zero_snr and self.steps < 2:
            raise ValueError("got zero_snr with a schedule of one step, expected at least two")
        noise = -self.steps * math.log1p(-self.beta_end)
        if self.kind != "cosine" and (self.beta_start < LEAST_BETA or noise > MOST_NOISE):
            raise ValueError(
                f"got beta_start {self.beta_start}, beta_end {self.beta_end} over {self.steps} "
                f"steps, expected beta_start from {LEAST_BETA} on and what is left of the signal "
                f"above e^-{MOST_NOISE}"
            )


class PredictFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keyframe predictor: `clip` latents at `stride`, the first `condition` of them given."""

    clip: Length
    condition: Length
    stride: Length

    def __post_init__(self) -> None:
        if self.condition >= self.clip:
            raise ValueError(
                f"condition {self.condition} leaves nothing new in a clip of {self.clip}"
            )


class InterpolateFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The infill network: `clip` latents, both ends given."""

    clip: Annotated[int, Meta(ge=3, le=4096)]


class ShortFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network for single clips of `clip` latents."""

    clip: Length


class DistilledFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The student of all other denoisers: it learnt to make a clip of theirs in `calls` calls."""

    calls: Count


class ContextFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of the text context that the networks read: (tokens, dim) per video."""

    tokens: Count
    dim: Count


class ModelFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the model is, apart from its weights.

    `frame_size` is (height, width) in pixels; `decode_window` counts latents per call of the
    decoder and encoder; noise levels run from 0 to `noise_levels` - 1.
    """

    frame_size: Size
    frames_per_latent: Length
    latent: LatentFacts
    schedule: ScheduleFacts
    decode_window: Length
    predict: PredictFacts | None = None
    interpolate: InterpolateFacts | None = None
    short: ShortFacts | None = None
    distilled: DistilledFacts | None = None
    noise_levels: Count | None = None
    context: ContextFacts | None = None

    def __post_init__(self) -> None:
        if any(f % z for f, z in zip(self.frame_size, self.latent.size, strict=True)):
            raise ValueError(
                f"frame_size {list(self.frame_size)} is not a multiple of "
                f"latent size {list(self.latent.size)}"
            )
        if self.predict and self.interpolate and self.interpolate.clip != self.predict.stride + 1:
            raise ValueError(
                f"interpolate clip {self.interpolate.clip} does not span the gap of keyframes at "
                f"stride {self.predict.stride}, expected {self.predict.stride + 1}"
            )
        if self.distilled and not (self.predict or self.interpolate or self.short):
            raise ValueError("distilled stands beside the denoisers that it learnt from, got none")
        if self.noise_levels is not None and self.noise_levels > self.schedule.steps:
            raise ValueError(
                f"noise_levels {self.noise_levels} exceeds the {self.schedule.steps} schedule steps"
            )
        self._check_extent()

    def _check_extent(self) -> None:
        """Refuse windows that no machine could hold."""
        clips = (part.clip for part in (self.predict, self.interpolate, self.short) if part)
        latents = max([self.decode_window, *clips]) * self.latent.channels
        pixels = self.decode_window * self.frames_per_latent * 3
        values = max(latents * math.prod(self.latent.size), pixels * math.prod(self.frame_size))
        if values > MOST_VALUES:
            raise ValueError(f"one window holds {values} values, expected at most {MOST_VALUES}")

    def clips(self, graph: str) -> set[int]:
        """Return the lengths in latents of the clips that a denoiser's graph takes."""
        parts = [getattr(self, name) for name in TAUGHT if graph in (name, "distilled")]
        return {part.clip for part in parts if part is not None}

    @property
    def calls(self) -> int | None:
        """How many calls its student learnt, if it has one."""
        return None if self.distilled is None else self.distilled.calls

    @property
    def downsample(self) -> tuple[int, int, int]:
        """Frames, rows and columns of pixels per latent."""
        (height, width), (h, w) = self.frame_size, self.latent.size
        return self.frames_per_latent, height // h, width // w


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, dtype and shape of one tensor; a string in the shape is a free dimension."""

    name: str
    dtype: Dtype
    shape: tuple[Count | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.kind}"

    @property
    def kind(self) -> str:
        """Dtype and shape as messages show them."""
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


class GraphFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One graph file; `data_sha256` is set where weights lie beside it in `<file>.data`."""

    file: str
    sha256: Sha256
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    data_sha256: Sha256 | None = None
    parameters: Annotated[int, Meta(ge=0, le=1 << 50)] | None = None
    gflop: Annotated[float, Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        path = PurePosixPath(self.file)
        if path.is_absolute() or ".." in path.parts or "\\" in self.file or path.suffix != ".onnx":
            raise ValueError(
                f"got file {quoted(self.file)}, expected a .onnx file inside the bundle"
            )

    @property
    def files(self) -> dict[str, str]:
        """Every file of the graph and its sha256."""
        extra = {} if self.data_sha256 is None else {f"{self.file}.data": self.data_sha256}
        return {self.file: self.sha256, **extra}


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the weights come from; several checkpoints are named by the graph they gave."""

    # not Sha256: msgspec 0.22 writes outside its memory for a union of a limited str with a dict
    checkpoint_sha256: str | dict[str, str]
    ema: bool
    lvdm_rt: Text
    torch: Text | None = None
    notes: dict[str, Any] = {}

    def __post_init__(self) -> None:
        told = self.checkpoint_sha256
        for digest in [told] if isinstance(told, str) else told.values():
            if not re.fullmatch("[0-9a-f]{64}", digest):
                raise ValueError(f"got checkpoint_sha256 {quoted(digest)}, expected 64 hex digits")


class TokenizerFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file `tokenizer.json`, and how many tokens the text encoder's table of them has."""

    sha256: Sha256
    vocabulary: Count


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole manifest; `parity` and `quality` are measured numbers, free in form."""

    schema: int = SCHEMA
    name: Text
    model: ModelFacts
    graphs: dict[str, GraphFacts]
    provenance: Provenance
    tokenizer: TokenizerFacts | None = None
    preview: PreviewMap | None = None
    defaults: Defaults = Defaults()
    parity: dict[str, dict[str, Any]] = {}
    quality: dict[str, Any] = {}

    def __post_init__(self) -> None:
        for name in self.graphs:
            if name not in GRAPH_NAMES:
                raise ValueError(
                    f"unknown graph {quoted(name)}, expected one of {', '.join(GRAPH_NAMES)}"
                )
            if name in DENOISERS and getattr(self.model, name) is None:
                raise ValueError(f"graph {name!r} is present but model.{name} is not")
        if ("text_encoder" in self.graphs) != (self.tokenizer is not None):
            names = ("graph 'text_encoder'", "tokenizer")
            there, missing = names if self.tokenizer is None else names[::-1]
            raise ValueError(f"{there} is present but {missing} is not")
        level, levels = self.defaults.noise_level, self.model.noise_levels or 0
        if level is not None and level >= levels:
            raise ValueError(f"defaults.noise_level {level} is outside the model's {levels} levels")
        if problem := self.defaults.misfit(self.model.calls):
            raise ValueError(problem)
        if self.overlap > self.model.decode_window // 2:
            raise ValueError(
                f"defaults.overlap {self.overlap} is more than half of the decode window of "
                f"{self.model.decode_window} latents"
            )

    @property
    def overlap(self) -> int:
        """Latents that neighbouring decode windows share unless asked otherwise."""
        chosen = self.defaults.overlap
        return self.model.decode_window // 2 if chosen is None else chosen

    def worst_error(self, graphs: Iterable[str]) -> float | None:
        """Return the largest difference from torch that was measured, relative, or None."""
        measured = (self.parity.get(graph, {}).get("max_rel") for graph in graphs)
        return max((error for error in measured if isinstance(error, float)), default=None)
