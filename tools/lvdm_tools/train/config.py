"""What a training run is: one YAML file, read into frozen structs that refuse unknown fields."""

import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lvdm_engines.defaults import Count
from lvdm_engines.errors import ConfigError, one_line, quoted
from lvdm_engines.manifest import MOST_VALUES, Length, ScheduleFacts, Size
from lvdm_export.config.mapping import Finite
from lvdm_export.config.yaml_file import read_yaml

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Steps = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Batch = Annotated[int, Meta(ge=1, le=1 << 16)]  # draws number a step's clips by 16 bits
Processes = Annotated[int, Meta(ge=1, le=64)]
Threads = Annotated[int, Meta(ge=1, le=1024)]
Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max)]
Weight = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
Share = Annotated[float, Meta(ge=0, le=1)]
Momentum = Annotated[float, Meta(ge=0, lt=1)]


class DeviceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the run computes; changing it never counts as another config.

    fp16 is not offered: it needs a loss scaler, whose skipped steps hide a NaN.
    """

    accelerator: str = "auto"
    devices: Processes = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: Threads | None = None


class Every(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Steps between log lines, checkpoints and sample sheets."""

    log: Steps = 50
    checkpoint: Steps = 500
    sample: Steps = 1000


class Optimizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Adam with a warm-up and a decay to zero over the whole run."""

    learning_rate: Positive
    decay: Literal["constant", "linear", "cosine"] = "linear"
    warmup: Whole = 0
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    weight_decay: Weight = 0.0
    clip: Annotated[float, Meta(gt=0)] = 1.0  # .inf: no clipping


class ClipData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Clips cut from the data: height and width in pixels, frames per clip, frame stride."""

    size: Size
    frames: Length
    stride: Length = 1


class Perceptual(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files that hold the VGG-16 features and the linear heads of LPIPS."""

    vgg: Path
    heads: Path
    weight: Weight = 1.0


class Adversarial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A 3D patch discriminator, silent before `start`."""

    start: Whole
    weight: Weight = 0.5
    channels: Annotated[int, Meta(ge=1, le=4096)] = 64
    layers: Annotated[int, Meta(ge=1, le=8)] = 3
    learning_rate: Positive | None = None


class AutoencoderLoss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of the autoencoder's losses; `kl` is per pixel, as in the paper's family."""

    mse: Weight = 0.0
    l1: Weight = 1.0
    kl: Weight = 1e-6
    motion: Weight = 0.0
    chroma: Weight = 0.0
    perceptual: Perceptual | None = None
    adversarial: Adversarial | None = None


class ScheduleConfig(ScheduleFacts, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """The noise schedule; the manifest's limits hold, and all fields are written out."""

    kind: Literal["sqrt-linear"] = "sqrt-linear"
    steps: Count = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0155
    zero_snr: Literal[False] = False


class ClipKind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way of cutting a training clip from a sequence of latents.

    `condition` is how many leading frames are given for predict; interpolate gives both ends.
    """

    kind: Literal["unconditional", "predict", "interpolate"]
    latents: Length
    probability: Weight
    stride: Length = 1
    condition: Length = 1


class TextTraining(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a denoiser learns to read captions; its `network.context_dim` is the encoder's width.

    A text encoder of these sizes is trained with it, with a vocabulary of byte pairs made of the
    captions; or `frozen` names one: a folder of CLIP as Hugging Face keeps it, or a trained model
    or its run. `dropped` is the share of clips that are learnt without their caption, for guidance.
    """

    tokens: Annotated[int, Meta(ge=3, le=4096)] = 32
    vocabulary: Annotated[int, Meta(ge=300, le=1 << 20)] = 1024
    layers: Annotated[int, Meta(ge=1, le=256)] = 2
    heads: Count = 4
    dropped: Share = 0.1
    frozen: Path | None = None


class EncodedData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sequences that are encoded once, in windows of `window` frames, before training."""

    size: Size
    frames: Length
    sequences: Count
    stride: Length = 1
    window: Length = 16


class AutoencoderRun(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="autoencoder"
):
    """A whole autoencoder run.

    `initial_logvar` is where the posterior's log variance starts: 0 (the official start) drowns
    young latents in unit noise, −4 lets reconstruction begin at once. `crop` trains on random
    crops of this height and width: more scenes per second of computing, at some cost at borders.
    `start_from` names a trained autoencoder of the same sizes, or its run, to begin with.
    `whiten` gives the model that is written latents of unit covariance; training is not affected.
    """

    name: Name
    seed: Whole
    steps: Steps
    batch: Batch
    network: dict[str, Any]
    data: ClipData
    optimizer: Optimizer
    loss: AutoencoderLoss = AutoencoderLoss()
    ema: Momentum | None = None
    initial_logvar: Finite = 0.0
    crop: Size | None = None
    start_from: Path | None = None
    whiten: bool = False
    decode_window: Length | None = (
        None  # latents per call of the exported decoder; None: as trained
    )
    device: DeviceConfig = DeviceConfig()
    every: Every = Every()


class DiffusionRun(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="diffusion"
):
    """A whole denoiser run on the latents of a trained autoencoder.

    `clean_conditions` is the share of conditional clips whose given frames enter unperturbed, with
    noise level −1; the others are perturbed to a random level, of which small ones are rare.
    """

    name: Name
    seed: Whole
    steps: Steps
    batch: Batch
    network: dict[str, Any]
    autoencoder: Path
    data: EncodedData
    clips: tuple[ClipKind, ...]
    optimizer: Optimizer
    loss: Literal["mse", "l1"] = "mse"
    schedule: ScheduleConfig = ScheduleConfig()
    noise_levels: Whole = 250
    clean_conditions: Share = 0.0
    start_from: Path | None = None
    text: TextTraining | None = None
    ema: Momentum | None = 0.9999
    device: DeviceConfig = DeviceConfig()
    every: Every = Every()


class DistillRun(DiffusionRun, frozen=True, forbid_unknown_fields=True, tag="distill"):
    """A denoiser that learns to do in few calls what another does in many.

    `start_from` is the teacher, whose weights it begins with. A clip then takes `calls` calls of
    the network, with the sampler `distilled`, each in place of `teacher_calls` of the teacher.
    """

    calls: Count = 4
    teacher_calls: Count = 4


Run = AutoencoderRun | DiffusionRun | DistillRun

_READY = Path(__file__).parent.parent / "configs"


def find(name: str) -> Path:
    """Return the file of a config: a path, or the name of a ready config.

    Raises ConfigError: neither a file nor a ready config.
    """
    path, ready = Path(name), _READY / f"{name}.yaml"
    if path.exists():
        return path
    if path.name == name and ready.exists():
        return ready
    known = ", ".join(sorted(file.stem for file in _READY.glob("*.yaml")))
    raise ConfigError(f"there is no config file {name}; the ready configs are {known}")


def load(path: Path, kind: str) -> Run:
    """Read a config file of the given kind.

    Raises ConfigError: not readable, not YAML, an unknown, missing or impossible field.
    """
    return parse(read_yaml(path), kind, str(path))


def parse(raw: object, kind: str, origin: str) -> Run:
    """Turn plain containers into a checked config."""
    try:
        run: Run = msgspec.convert(raw, Run, strict=False, dec_hook=_path)
    except (msgspec.ValidationError, RecursionError) as err:
        raise ConfigError(f"{origin}: {one_line(str(err), 300)}") from err
    actual = to_plain(run)["kind"]
    if actual != kind:
        raise ConfigError(f"{origin} describes a run of train {actual}, not of train {kind}")
    _check(run, origin)
    return run


def _path(kind: type, value: object) -> Path:
    if kind is not Path or not isinstance(value, str | Path):
        raise TypeError(f"Expected a file name, got {quoted(value)}")
    return Path(value)


def to_plain(run: Run) -> dict[str, Any]:
    """Give the config as containers that YAML and JSON can hold."""
    plain: dict[str, Any] = msgspec.to_builtins(run, enc_hook=str)
    return plain


def _check(run: Run, origin: str) -> None:
    crop = run.crop if isinstance(run, AutoencoderRun) else None
    if crop is not None and any(c > n for c, n in zip(crop, run.data.size, strict=True)):
        raise ConfigError(f"{origin}: crop is {crop}, expected at most data.size {run.data.size}")
    frames = run.data.frames
    if isinstance(run, DiffusionRun):
        _check_clips(run, origin)
        frames = max(clip.latents for clip in run.clips)
    values = max(run.batch * frames, run.data.frames) * math.prod(run.data.size) * 3
    if values > MOST_VALUES:
        raise ConfigError(
            f"{origin}: one batch or sequence holds {values:.2g} values, expected at most "
            f"{MOST_VALUES:.2g}; lower batch, data.frames or data.size"
        )


def _check_clips(run: DiffusionRun, origin: str) -> None:
    if sum(clip.probability for clip in run.clips) <= 0:
        raise ConfigError(f"{origin}: clips have no probability above 0, so nothing can be drawn")
    for index, clip in enumerate(run.clips):
        least = {"unconditional": 1, "predict": clip.condition + 1, "interpolate": 3}[clip.kind]
        if clip.latents < least:
            raise ConfigError(
                f"{origin}: clips[{index}] ({clip.kind}) needs at least {least} latents, got {clip}"
            )
    if run.noise_levels > run.schedule.steps:
        raise ConfigError(
            f"{origin}: noise_levels is {run.noise_levels}, expected 0..{run.schedule.steps}"
        )
