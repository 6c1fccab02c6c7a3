"""Model configurations: the authors' YAML files, and our own JSON records.

Only numbers are read from the YAML. Import paths (`target`) are ignored, unknown parameters are
refused by name, and so are values that the networks here do not implement.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lvdm_engines.errors import ConfigError
from lvdm_engines.manifest import InterpolateFacts, PredictFacts, ScheduleFacts, ShortFacts
from lvdm_export.config.mapping import StrictMapping
from lvdm_export.config.model_json import ModelRecord, kind_of, read_record
from lvdm_export.config.networks import read_autoencoder2d, read_autoencoder3d, read_unet
from lvdm_export.nets.unet3d import UNet3dConfig

if TYPE_CHECKING:
    from lvdm_export.nets.autoencoder2d import Autoencoder2dConfig
    from lvdm_export.nets.autoencoder3d import Autoencoder3dConfig

# The authors name the schedule after what is linear in it last; "linear" is linear in sqrt(beta).
_SCHEDULES = {"linear": "sqrt-linear", "sqrt_linear": "linear", "cosine": "cosine"}
_CLIP_TOKENS = 77

# What files of another kind make the parser raise; it only catches some of its own mistakes.
_YAML_FAULTS = (
    yaml.YAMLError,
    RecursionError,
    AttributeError,
    IndexError,
    KeyError,
    ValueError,
)

_DIFFUSION_TRAINING = (
    "log_every_t",
    "loss_type",
    "first_stage_key",
    "cond_stage_key",
    "monitor",
    "cond_stage_config",
    "cond_stage_trainable",
    "cond_stage_forward",
    "concat_mode",
    "conditioning_key",
    "noisy_cond",
    "encoder_type",
    "rand_temporal_mask",
    "split_clips",
    "downfactor_t",
    "clip_length",
    "num_timesteps_cond",
    "clip_denoised",
    "scheduler_config",
    "learn_logvar",
    "logvar_init",
    "l_simple_weight",
    "original_elbo_weight",
    "n_classes",
    "ckpt_path",
    "ignore_keys",
    "load_only_unet",
)
_AUTOENCODER_TRAINING = (
    "monitor",
    "lossconfig",
    "ckpt_path",
    "ignore_keys",
    "image_key",
)


@dataclass(frozen=True)
class Description:
    """What a configuration file describes: a denoiser, an autoencoder, or both."""

    path: Path
    denoiser: ModelRecord | None
    autoencoder: ModelRecord | None


def read_config(path: Path) -> Description:
    """Read a `.json` record of ours or one of the authors' YAML files.

    Raises:
        ConfigError: unreadable, malformed, unknown or missing parameters, unsupported values.

    """
    if path.suffix == ".json":
        record = read_record(path)
        denoiser = record if record.kind == "unet3d" else None
        return Description(path, denoiser, None if denoiser else record)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"cannot read the config {path}: {err.strerror}") from err
    except _YAML_FAULTS as err:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(err).split())[:160]}") from err
    return parse_config(raw, path)


def parse_config(raw: object, path: Path) -> Description:
    """Read the containers of a YAML file; `path` names it in messages.

    Raises ConfigError as `read_config` does.
    """
    params = StrictMapping(raw, str(path)).section("model").section("params")
    if "unet_config" not in params:
        if "ddconfig" not in params:
            raise ConfigError(
                f"{params.path} has neither unet_config nor ddconfig, "
                "expected a diffusion model or an autoencoder"
            )
        return Description(path, None, _autoencoder(params, {}))
    return _diffusion(params, path)


def _diffusion(params: StrictMapping, path: Path) -> Description:
    unet = read_unet(params.section("unet_config"))
    latents = {
        "latent_size": _size(params),
        "scale": params.read("scale_factor", float, 1.0),
        "shift": params.read("shift_factor", float, 0.0),
    }
    autoencoder = None
    if "first_stage_config" in params:
        first_stage = params.section("first_stage_config")
        autoencoder = _autoencoder(first_stage.section("params"), latents)
        first_stage.ignore("target")
        first_stage.finish()
    clips = _clips(params, unet)
    denoiser = ModelRecord(
        kind="unet3d",
        config=asdict(unet),
        frame_size=None if autoencoder is None else autoencoder.frame_size,
        schedule=_schedule(params),
        context_tokens=None if unet.context_dim is None else _CLIP_TOKENS,
        ema=params.read("use_ema", bool, True),
        **latents,
        **clips,
    )
    if params.read("channels", int, unet.out_channels) != unet.out_channels:
        params.refuse("channels", f"{unet.out_channels}, the network's out_channels")
    params.fixed(
        parameterization="eps", scale_by_std=False, given_betas=None, v_posterior=0.0, cosine_s=8e-3
    )
    params.ignore(*_DIFFUSION_TRAINING)
    params.finish()
    return Description(path, denoiser, autoencoder)


def _size(params: StrictMapping) -> tuple[int, int]:
    listed = isinstance(params.peek("image_size"), list)
    value = params.read("image_size", tuple[int, ...] if listed else int)
    value = value if listed else (value, value)
    if len(value) != 2 or min(value) < 1:
        params.refuse("image_size", "one side or [height, width]")
    return value[0], value[1]


def _schedule(params: StrictMapping) -> ScheduleFacts:
    name = params.peek("beta_schedule") or "linear"
    if name not in _SCHEDULES:
        params.refuse("beta_schedule", f"one of {', '.join(_SCHEDULES)}")
    params.ignore("beta_schedule")
    try:
        return ScheduleFacts(
            kind=_SCHEDULES[name],  # type: ignore[arg-type] # the values are the manifest's kinds
            steps=params.read("timesteps", int, 1000),
            beta_start=params.read("linear_start", float, 1e-4),
            beta_end=params.read("linear_end", float, 2e-2),
        )
    except ValueError as err:
        raise ConfigError(f"{params.path}: {err}") from err


def _clips(params: StrictMapping, unet: UNet3dConfig) -> dict[str, Any]:
    """Read what kinds of clips the model was trained for; the graph names choose among them."""
    clip = params.read("video_length", int, unet.temporal_length)
    condition = min(params.read("n_prevs", tuple[int, ...], (1,)), default=1)
    stride = params.read("latent_frame_strde", int, params.read("latent_frame_stride", int, 4))
    levels = params.read("max_noise_level", int, None)
    facts: dict[str, Any] = {"short": ShortFacts(clip)}
    # how often training gave the first latents, or both ends; a network that never saw one of the
    # two makes noise of it
    predicts, infills = params.read("p_pred", float, None), params.read("p_interp", float, None)
    if unet.in_channels != unet.out_channels:  # the mask channel
        if 0 < condition < clip and (predicts != 0 or not infills):
            facts["predict"] = PredictFacts(clip, condition, stride)
        if clip >= 3 and (infills != 0 or not predicts):
            facts["interpolate"] = InterpolateFacts(clip)
        if unet.num_classes is not None:
            facts["noise_levels"] = unet.num_classes - 1 if levels is None else levels
    if facts.get("noise_levels", 0) > (unet.num_classes or 0):
        params.refuse("max_noise_level", f"at most num_classes {unet.num_classes}")
    return facts


def _autoencoder(params: StrictMapping, latents: dict[str, Any]) -> ModelRecord:
    config = params.section("ddconfig")
    embed_dim = params.read("embed_dim", int)
    params.fixed(colorize_nlabels=None)
    params.ignore(*_AUTOENCODER_TRAINING)
    params.finish()
    config.fixed(double_z=True)
    network: Autoencoder3dConfig | Autoencoder2dConfig
    if "encoder" in config:
        network = read_autoencoder3d(config, embed_dim)
        factors = network.downsample
    else:
        network = read_autoencoder2d(config, embed_dim)
        factors = (1, *(2 ** (len(network.ch_mult) - 1),) * 2)
    config.finish()
    size = latents.get("latent_size")
    return ModelRecord(
        kind=kind_of(network),
        config=asdict(network),
        frame_size=None if size is None else (size[0] * factors[1], size[1] * factors[2]),
        **latents,
    )
