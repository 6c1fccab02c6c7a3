"""What the manifest says of a model, gathered from the records of its networks."""

from collections.abc import Mapping
from typing import Any

import msgspec

from lvdm_engines.errors import ConfigError
from lvdm_engines.manifest import ContextFacts, Defaults, LatentFacts, ModelFacts, ScheduleFacts
from lvdm_export.config.model_json import ModelRecord
from lvdm_export.nets.autoencoder2d import Autoencoder2dConfig
from lvdm_export.nets.autoencoder3d import Autoencoder3dConfig
from lvdm_export.nets.unet3d import UNet3dConfig

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
    for name, record in denoisers.items():
        _check_tables(name, record)
    factors = config.downsample
    records = {"autoencoder": autoencoder, **denoisers}
    frame_size = _agreed(
        "frame size",
        {
            name: record.frame_size
            or (record.latent_size and _times(record.latent_size, factors[1:]))
            for name, record in records.items()
        },
    )
    window = decode_window or autoencoder.decode_window or _trained_window(factors[0])
    try:
        latent = LatentFacts(
            channels=_channels(config, denoisers),
            size=(frame_size[0] // factors[1], frame_size[1] // factors[2]),
            scale=_agreed("latent scale", {n: r.scale for n, r in records.items()}),
            shift=_agreed("latent shift", {n: r.shift for n, r in records.items()}),
        )
        facts = ModelFacts(
            frame_size=frame_size,
            frames_per_latent=factors[0],
            latent=latent,
            schedule=_schedule(denoisers),
            decode_window=window,
            noise_levels=_noise_levels(denoisers),
            context=_context(denoisers),
            **{name: _clip(name, record) for name, record in denoisers.items()},
        )
        # the sum of what was read may be what no manifest can say
        return msgspec.convert(msgspec.to_builtins(facts), ModelFacts)
    except (ValueError, ArithmeticError, msgspec.ValidationError) as err:
        raise ConfigError(f"the networks do not fit together: {err}") from err


def defaults(model: ModelFacts, fps: float) -> Defaults:
    """Return the sampling settings that the paper and the authors' scripts use for such a model."""
    if model.context is not None:
        return Defaults(guidance=_TEXT_GUIDANCE, fps=fps)
    if model.noise_levels is None:
        return Defaults(fps=fps)
    level = min(_PERTURBATION, model.noise_levels - 1)
    return Defaults(guidance=_LONG_GUIDANCE, noise_level=level, fps=fps)


def _trained_window(frames_per_latent: int) -> int:
    return 1 if frames_per_latent == 1 else max(1, _WINDOW_FRAMES // frames_per_latent)


def _times(size: tuple[int, int], factors: tuple[int, int]) -> tuple[int, int]:
    return size[0] * factors[0], size[1] * factors[1]


def _agreed(what: str, values: Mapping[str, Any]) -> Any:
    """Return the value that all networks which know it agree on."""
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        raise ConfigError(f"no config says the {what}; add it to one of {', '.join(values)}")
    first, *others = known.items()
    for name, value in others:
        if value != first[1]:
            raise ConfigError(
                f"the {what} differs: {first[0]} has {first[1]}, {name} has {value}; "
                "the networks belong to different models"
            )
    return first[1]


def _check_tables(name: str, record: ModelRecord) -> None:
    """Refuse a network whose tables lack a row for a number that it will be given."""
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
    steps = None if record.schedule is None else record.schedule.steps
    if unet.prediction == "v" and steps not in (None, unet.timesteps):
        raise ConfigError(
            f"the config of {name}: timesteps is {unet.timesteps}, but the schedule has {steps} "
            "steps, expected as many"
        )


def _channels(
    config: Autoencoder3dConfig | Autoencoder2dConfig, denoisers: Mapping[str, ModelRecord]
) -> int:
    channels = {"autoencoder": config.embed_dim}
    for name, record in denoisers.items():
        unet = record.network_config()
        assert isinstance(unet, UNet3dConfig)  # noqa: S101 - `_check_tables` refused others
        channels[name] = unet.out_channels
    return int(_agreed("number of latent channels", channels))


def _schedule(denoisers: Mapping[str, ModelRecord]) -> ScheduleFacts:
    schedule: ScheduleFacts = _agreed(
        "noise schedule", {name: record.schedule for name, record in denoisers.items()}
    )
    return schedule


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
    return int(_agreed("number of noise levels", levels))


def _context(denoisers: Mapping[str, ModelRecord]) -> ContextFacts | None:
    contexts: dict[str, ContextFacts | None] = {}
    for name, record in denoisers.items():
        unet = record.network_config()
        if isinstance(unet, UNet3dConfig) and unet.context_dim is not None:
            if record.context_tokens is None:
                raise ConfigError(f"the config of {name} does not say context_tokens")
            contexts[name] = ContextFacts(record.context_tokens, unet.context_dim)
        else:
            contexts[name] = None
    if not any(contexts.values()):
        return None
    if not all(contexts.values()):
        raise ConfigError("some networks read a text context and others do not; make two bundles")
    context: ContextFacts = _agreed("text context", contexts)
    return context


def _clip(name: str, record: ModelRecord) -> Any:
    facts = getattr(record, name)
    if facts is None:
        known = [n for n in ("short", "predict", "interpolate") if getattr(record, n) is not None]
        raise ConfigError(
            f"the config given for {name} describes a network for {', '.join(known) or 'nothing'}; "
            f"use --{known[0] if known else 'short'} for it"
        )
    return facts
