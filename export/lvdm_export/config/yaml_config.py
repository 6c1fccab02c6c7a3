"""Model configurations: the authors' YAML files, and our own JSON records.

Only numbers are read from the YAML. Import paths (`target`) are ignored, unknown parameters are
refused by name, and so are values that the networks here do not implement.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from lvdm_engines.defaults import Count
from lvdm_engines.errors import ConfigError
from lvdm_engines.manifest import (
    InterpolateFacts,
    Length,
    PredictFacts,
    ScheduleFacts,
    ScheduleKind,
    ShortFacts,
)
from lvdm_export.config.mapping import Finite, StrictMapping
from lvdm_export.config.model_json import Kind, ModelRecord, read_record
from lvdm_export.config.networks import read_autoencoder2d, read_autoencoder3d, read_unet
from lvdm_export.config.yaml_file import read_yaml
from lvdm_export.nets.sizes import Width
from lvdm_export.nets.unet3d import UNet3dConfig

# The authors name the schedule after what is linear in it last; "linear" is linear in sqrt(beta).
_Schedule = Literal["linear", "sqrt_linear", "cosine"]
_SCHEDULES: dict[_Schedule, ScheduleKind] = {
    "linear": "sqrt-linear",
    "sqrt_linear": "linear",
    "cosine": "cosine",
}
_Prediction = Literal["eps", "x0", "v"]
_CLIP_TOKENS = 77
_LARGEST_SIDE = 16384

# what matters to training only
_DIFFUSION_TRAINING = (
    "log_every_t", "loss_type", "first_stage_key", "cond_stage_key", "monitor", "cond_stage_config",
    "cond_stage_trainable", "cond_stage_forward", "concat_mode", "noisy_cond",
    "encoder_type", "rand_temporal_mask", "split_clips", "downfactor_t", "clip_length",
    "num_timesteps_cond", "clip_denoised", "scheduler_config", "learn_logvar", "logvar_init",
    "l_simple_weight", "original_elbo_weight", "n_classes", "ckpt_path", "ignore_keys",
    "load_only_unet", "only_model", "mask_cond_loss", "uncondnoS",
)  # fmt: skip
_AUTOENCODER_TRAINING = (
    "monitor", "lossconfig", "ckpt_path", "ignore_keys", "image_key", "std", "mean", "prob",
    "test", "test_args", "logdir", "input_dim",
)  # fmt: skip
# Others give the network class labels, or a noise level for every frame.
_Conditioning = Literal[
    "concat", "crossattn", "hybrid", "concat-mask", "concat-adm-mask", "hybrid-mask",
    "hybrid-adm-mask",
]  # fmt: skip


@dataclass(frozen=True)
class Description:
    """What a configuration file describes: a denoiser, an autoencoder, or both."""

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
        return Description(denoiser, None if denoiser else record)
    return parse_config(read_yaml(path), path)


def parse_config(raw: object, path: Path) -> Description:
    """Read the containers of a YAML file; `path` names it in messages.

    Raises ConfigError as `read_config` does.
    """
    params = StrictMapping(raw, str(path)).section("model").section("params")
    if "unet_config" in params:
        return _diffusion(params)
    if "ddconfig" in params:
        return Description(None, _autoencoder(params, {}))
    raise ConfigError(
        f"{params.path} has neither unet_config nor ddconfig, "
        "expected a diffusion model or an autoencoder"
    )


def _diffusion(params: StrictMapping) -> Description:
    schedule = _schedule(params)
    unet = _predicting(params, read_unet(params.component("unet_config")), schedule)
    latents = {
        "latent_size": _size(params),
        "scale": _scale(params),
        "shift": params.read("shift_factor", Finite, 0.0, "a finite number"),
    }
    autoencoder = None
    if "first_stage_config" in params:
        autoencoder = _autoencoder(params.component("first_stage_config"), latents)
    denoiser = ModelRecord(
        kind="unet3d",
        config=asdict(unet),
        frame_size=None if autoencoder is None else autoencoder.frame_size,
        schedule=schedule,
        context_tokens=None if unet.context_dim is None else _CLIP_TOKENS,
        ema=params.read("use_ema", bool, True),
        **latents,
        **_clips(params, unet),
    )
    if params.read("channels", int, unet.out_channels) != unet.out_channels:
        params.refuse("channels", f"{unet.out_channels}, the network's out_channels")
    known = ", ".join(get_args(_Conditioning))
    params.read("conditioning_key", _Conditioning, None, f"one of {known}")
    params.fixed(
        concat_mask_on_input=True,
        mergenoisy=True,
        lora_args={},
        given_betas=None,
        v_posterior=0.0,
        cosine_s=8e-3,
    )
    params.finish(*_DIFFUSION_TRAINING)
    return Description(denoiser, autoencoder)


def _scale(params: StrictMapping) -> float | None:
    """Return the latents' scale, or None where training measured it: the checkpoint holds it."""
    scale: float = params.read("scale_factor", Finite, 1.0, "a finite number")
    return None if params.read("scale_by_std", bool, False) else scale


def _size(params: StrictMapping) -> tuple[int, int]:
    expected = "one side or [height, width]"
    # not `Side | Size`: bounds beside a tuple crash msgspec 0.22 where it gets true or false
    size = params.read("image_size", int | tuple[int, int], expected=expected)
    height, width = (size, size) if isinstance(size, int) else size
    if not (1 <= height <= _LARGEST_SIDE and 1 <= width <= _LARGEST_SIDE):
        params.refuse("image_size", f"{expected}, at most {_LARGEST_SIDE}")
    return height, width


def _schedule(params: StrictMapping) -> ScheduleFacts:
    expected = f"one of {', '.join(_SCHEDULES)}"
    name: _Schedule = params.read("beta_schedule", _Schedule, "linear", expected)
    return params.make(
        ScheduleFacts,
        kind=_SCHEDULES[name],
        steps=params.read("timesteps", Count, 1000),
        beta_start=params.read("linear_start", float, 1e-4),
        beta_end=params.read("linear_end", float, 2e-2),
        zero_snr=params.read("rescale_betas_zero_snr", bool, False),
    )


def _predicting(params: StrictMapping, unet: UNet3dConfig, schedule: ScheduleFacts) -> UNet3dConfig:
    """Add what the network gives: where ᾱ ends at 0, ε says nothing of the picture there."""
    expected = "eps, v or x0"
    kind: _Prediction = params.read("parameterization", _Prediction, "eps", expected)
    if schedule.zero_snr and kind == "eps":
        params.refuse("rescale_betas_zero_snr", "false, or parameterization v or x0")
    return replace(unet, prediction=kind, timesteps=schedule.steps)


def _clips(params: StrictMapping, unet: UNet3dConfig) -> dict[str, Any]:
    """Read what kinds of clips the model was trained for; the graph names choose among them."""
    clip = params.read("video_length", Length, unet.temporal_length)
    condition = min(params.read("n_prevs", tuple[int, ...], (1,)), default=1)
    stride = params.read("latent_frame_stride", Length, 4)
    stride = params.read("latent_frame_strde", Length, stride)  # as the authors write it
    levels = params.read("max_noise_level", Count, None)
    # how often training gave the first latents, or both ends; a network that never saw one of the
    # two makes noise of it; where neither is told, both may have been
    predicts, infills = params.read("p_pred", float, 0.0), params.read("p_interp", float, 0.0)
    both_ends = params.read("interp_frame_stride", Length, clip - 1) == clip - 1
    facts: dict[str, Any] = {"short": ShortFacts(clip)}
    if unet.in_channels != unet.out_channels:  # the mask channel
        if 0 < condition < clip and (predicts or not infills):
            facts["predict"] = PredictFacts(clip, condition, stride)
        if clip >= 3 and both_ends and (infills or not predicts):
            facts["interpolate"] = InterpolateFacts(clip)
        if unet.num_classes is not None:
            facts["noise_levels"] = unet.num_classes - 1 if levels is None else levels
    if facts.get("noise_levels", 0) > (unet.num_classes or 0):
        params.refuse("max_noise_level", f"at most num_classes {unet.num_classes}")
    return facts


def _autoencoder(params: StrictMapping, latents: dict[str, Any]) -> ModelRecord:
    config, embed_dim = params.section("ddconfig"), params.read("embed_dim", Width)
    params.fixed(colorize_nlabels=None)
    params.finish(*_AUTOENCODER_TRAINING)
    kind: Kind = "autoencoder3d" if "encoder" in config else "autoencoder2d"
    read = read_autoencoder3d if kind == "autoencoder3d" else read_autoencoder2d
    network = read(config, embed_dim)
    size, (_, rows, columns) = latents.get("latent_size"), network.downsample
    return ModelRecord(
        kind=kind,
        config=asdict(network),
        frame_size=None if size is None else (size[0] * rows, size[1] * columns),
        **latents,
    )
