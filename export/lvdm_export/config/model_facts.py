"""What the manifest says of a model, gathered from the records of its networks."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from lvdm_engines.defaults import Defaults
from lvdm_engines.errors import ConfigError
from lvdm_engines.manifest import TAUGHT, ContextFacts, DistilledFacts, LatentFacts, ModelFacts
from lvdm_export.config.model_json import ModelRecord
from lvdm_export.nets.unet3d import UNet3dConfig

T = TypeVar("T")

_WINDOW_FRAMES = 16  # the paper's autoencoders are trained on clips of 16 frames
_PERTURBATION = 100  # the paper's noise level for conditions
_LONG_GUIDANCE = 0.1
_TEXT_GUIDANCE = 14.0  # e_u + 15 (e_c - e_u) in the authors' text-to-video sampler


def model_facts(
    denoisers: Mapping[str, ModelRecord], autoencoder: ModelRecord, decode_window: int | None = None
) -> ModelFacts:
    """Gather the facts of one model from its denoisers, by graph name, and its autoencoder.

    Raises:
        ConfigError: networks that do not belong together, or a graph that no network was made for.

    """
    config = autoencoder.network_config()
    if isinstance(config, UNet3dConfig):
        raise ConfigError("the autoencoder's config describes a denoiser; swap the two")
    unets = {name: _denoiser(name, record) for name, record in denoisers.items()}
    _check_student(denoisers)
    widths = {name: unet.out_channels for name, unet in unets.items()}
    factors = config.downsample
    records = {"autoencoder": autoencoder, **denoisers}
    frame_size = _agreed("frame size", {n: _frame_size(r, factors) for n, r in records.items()})
    window = decode_window or autoencoder.decode_window or _trained_window(factors[0])
    try:
        latent = LatentFacts(
            channels=_agreed(
                "number of latent channels", {"autoencoder": config.embed_dim, **widths}
            ),
            size=(frame_size[0] // factors[1], frame_size[1] // factors[2]),
            scale=_agreed("latent scale", {n: r.scale for n, r in records.items()}),
            shift=_agreed("latent shift", {n: r.shift for n, r in records.items()}),
        )
        facts = ModelFacts(
            frame_size=frame_size,
            frames_per_latent=factors[0],
            latent=latent,
            schedule=_agreed("noise schedule", {n: r.schedule for n, r in denoisers.items()}),
            decode_window=window,
            noise_levels=_noise_levels(denoisers),
            context=_context(denoisers, unets),
            **{name: _clip(name, record) for name, record in denoisers.items()},
        )
        # the sum of what was read may be what no manifest can say
        return msgspec.convert(msgspec.to_builtins(facts), ModelFacts)
    except (ValueError, ArithmeticError, msgspec.ValidationError) as err:
        raise ConfigError(f"the networks do not fit together: {err}") from err


def defaults(model: ModelFacts, fps: float) -> Defaults:
    """Return the sampling settings that the paper and the authors' scripts use for such a model.

    Where it has a student, that one is sampled.
    """
    text = None if model.context is None else _TEXT_GUIDANCE
    usual = Defaults(text_guidance=text, fps=fps)
    if model.noise_levels is not None:
        level = min(_PERTURBATION, model.noise_levels - 1)
        usual = replace(usual, guidance=_LONG_GUIDANCE, noise_level=level)
    if model.calls is None:
        return usual
    return replace(usual, sampler="distilled", steps=model.calls)


def _trained_window(frames_per_latent: int) -> int:
    return 1 if frames_per_latent == 1 else max(1, _WINDOW_FRAMES // frames_per_latent)


def _frame_size(record: ModelRecord, factors: tuple[int, int, int]) -> tuple[int, int] | None:
    if record.frame_size is not None or record.latent_size is None:
        return record.frame_size
    return record.latent_size[0] * factors[1], record.latent_size[1] * factors[2]


def _agreed(what: str, values: Mapping[str, T | None]) -> T:
    """Return the value that all networks which know it agree on."""
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        raise ConfigError(f"no config says the {what}; add it to one of {', '.join(values)}")
    first, agreed = next(iter(known.items()))
    for name, value in known.items():
        if value != agreed:
            raise ConfigError(
                f"the {what} differs: {first} has {agreed}, {name} has {value}; "
                "the networks belong to different models"
            )
    return agreed


def _denoiser(name: str, record: ModelRecord) -> UNet3dConfig:
    """Return a denoiser's sizes, once its tables have a row for every number it will be given."""
    unet = record.network_config()
    if not isinstance(unet, UNet3dConfig):
        raise ConfigError(
            f"the config of {name} describes a network of kind {record.kind}, not a denoiser"
        )
    if (record.noise_levels or 0) > (unet.num_classes or 0):
        raise ConfigError(
            f"the config of {name}: noise_levels is {record.noise_levels}, but num_classes is "
            f"{unet.num_classes}, expected at least as many"
        )
    farthest = 1 if record.predict is None else record.predict.stride
    if unet.max_stride is not None and farthest > unet.max_stride:
        raise ConfigError(
            f"the config of {name}: predict has a stride of {farthest}, but max_stride is "
            f"{unet.max_stride}, expected at least as many"
        )
    steps = None if record.schedule is None else record.schedule.steps
    if unet.prediction != "eps" and steps not in (None, unet.timesteps):
        raise ConfigError(
            f"the config of {name}: timesteps is {unet.timesteps}, but the schedule has {steps} "
            "steps, expected as many"
        )
    return unet


def _noise_levels(denoisers: Mapping[str, ModelRecord]) -> int | None:
    levels = {name: record.noise_levels for name, record in denoisers.items()}
    if not any(levels.values()):
        return None
    for name in ("predict", "interpolate"):
        if name in levels and levels[name] is None:
            raise ConfigError(
                f"{name} has no noise level input, but another network of the model has; "
                "export them as two bundles"
            )
    return _agreed("number of noise levels", levels)


def _context(
    denoisers: Mapping[str, ModelRecord], unets: Mapping[str, UNet3dConfig]
) -> ContextFacts | None:
    contexts: dict[str, ContextFacts] = {}
    for name, unet in unets.items():
        if unet.context_dim is not None:
            tokens = denoisers[name].context_tokens
            if tokens is None:
                raise ConfigError(f"the config of {name} does not say context_tokens")
            contexts[name] = ContextFacts(tokens, unet.context_dim)
    if not contexts:
        return None
    if len(contexts) < len(unets):
        raise ConfigError("some networks read a text context and others do not; make two bundles")
    return _agreed("text context", contexts)


def _check_student(denoisers: Mapping[str, ModelRecord]) -> None:
    """Compare the clips of a distilled denoiser with those of the others."""
    student = denoisers.get("distilled")
    for name in TAUGHT if student else ():
        if name in denoisers and getattr(student, name) != getattr(denoisers[name], name):
            raise ConfigError(
                f"the student learnt {name} as {getattr(student, name)}, but the network given for "
                f"it is of {getattr(denoisers[name], name)}; give its teacher"
            )


def _clip(name: str, record: ModelRecord) -> Any:
    if name == "distilled":
        if record.calls is None:
            raise ConfigError(
                "the config given for distilled does not say how many calls the network learnt; "
                "lvdm-tools train distill makes one that does"
            )
        return DistilledFacts(record.calls)
    if record.calls is not None:
        raise ConfigError(
            f"the config given for {name} describes a student of {record.calls} calls; give it "
            "with --distilled, and its teacher here"
        )
    facts = getattr(record, name)
    if facts is None:
        known = [n for n in TAUGHT if getattr(record, n) is not None]
        raise ConfigError(
            f"the config given for {name} describes a network for {', '.join(known) or 'nothing'}; "
            f"use --{known[0] if known else 'short'} for it"
        )
    return facts
