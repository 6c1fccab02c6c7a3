"""The networks' sizes in the authors' configuration files, under the authors' names."""

from dataclasses import replace
from typing import Any, get_type_hints

from lvdm_engines.errors import ConfigError
from lvdm_export.config.mapping import StrictMapping
from lvdm_export.nets.autoencoder2d import Autoencoder2dConfig
from lvdm_export.nets.autoencoder3d import Autoencoder3dConfig
from lvdm_export.nets.sizes import Downsample, Width
from lvdm_export.nets.unet3d import UNet3dConfig

# of training only, or without effect in the authors' code
_UNUSED = (
    "image_size", "use_checkpoint", "use_fp16", "dropout", "legacy", "num_heads_upsample",
)  # fmt: skip


def read_unet(params: StrictMapping) -> UNet3dConfig:
    """Read a denoiser. Raises ConfigError for unknown, missing or unsupported values."""
    unet = params.build(
        UNet3dConfig,
        "in_channels",
        "out_channels",
        "model_channels",
        "num_res_blocks",
        "attention_resolutions",
        "temporal_length",
        channel_mult=(1, 2, 4, 8),
        num_heads=-1,
        num_head_channels=-1,
        use_scale_shift_norm=False,
        num_classes=None,
        context_dim=None,
        use_temporal_transformer=False,
        transformer_depth=1,
        norm_groups=32,
        use_relative_position=False,
        conv_resample=True,
        resblock_updown=False,
        kernel_size_t=1,
        nonlinearity_type="silu",
    )
    params.fixed(
        dims=3,
        padding_t=unet.kernel_size_t // 2,  # any other changes the length of the clip
        n_embed=None,
        cond_aug_mode="learned_embed",
        ST_transformer_module="attention_temporal",
        ST_transformer_class="SpatialTemporalTransformer",
    )
    params.finish(*_UNUSED)
    if unet.in_channels == unet.out_channels and unet.num_classes is not None:
        params.refuse("num_classes", "none where there is no mask channel: labels cannot be given")
    if unet.in_channels not in {unet.out_channels, unet.out_channels + 1}:
        params.refuse("in_channels", f"out_channels {unet.out_channels}, or one more for the mask")
    if unet.num_heads == -1 and unet.num_head_channels == -1:
        raise ConfigError(f"{params.path}.num_heads is missing")
    if unet.use_temporal_transformer != (unet.context_dim is not None):
        raise ConfigError(
            f"{params.path}: use_temporal_transformer is "
            f"{str(unet.use_temporal_transformer).lower()} and context_dim is {unet.context_dim}, "
            "expected both or neither"
        )
    return unet


def read_autoencoder3d(config: StrictMapping, embed_dim: int) -> Autoencoder3dConfig:
    """Read the `ddconfig` of a 3D autoencoder. Raises ConfigError as `read_unet` does."""
    z_channels = config.read("z_channels", Width)
    kinds = get_type_hints(Autoencoder3dConfig)
    sizes: dict[str, Any] = {"z_channels": z_channels, "embed_dim": embed_dim}
    halves = {}
    for name, field in (("encoder", "downsample"), ("decoder", "upsample")):
        params = config.component(name)
        halves[name] = {
            "n_hiddens": params.read("n_hiddens", Width),
            "downsample": params.read(field, Downsample),
            "norm_groups": params.read("norm_groups", Width, 32),
            "norm_type": params.read("norm_type", kinds["norm_type"], "group"),
        }
        if params.read("z_channels", int, z_channels) != z_channels:
            params.refuse("z_channels", f"{z_channels} as in ddconfig")
        if name == "encoder":
            sizes["padding_type"] = params.read("padding_type", kinds["padding_type"], "replicate")
        else:  # whose convolutions are always so
            params.fixed(padding_type="replicate")
        params.fixed(image_channel=3, double_z=True)
        params.finish()
    if halves["encoder"] != halves["decoder"]:
        raise ConfigError(
            f"{config.path}: encoder {halves['encoder']} and decoder {halves['decoder']} disagree, "
            "expected the same n_hiddens, factors and norms"
        )
    config.fixed(double_z=True)
    config.finish()
    return config.make(Autoencoder3dConfig, **sizes, **halves["encoder"])


def read_autoencoder2d(config: StrictMapping, embed_dim: int) -> Autoencoder2dConfig:
    """Read the `ddconfig` of a 2D autoencoder. Raises ConfigError as `read_unet` does."""
    config.fixed(
        double_z=True,
        in_channels=3,
        out_ch=3,
        give_pre_end=False,
    )
    linear = config.read("use_linear_attn", bool, False)
    sizes = config.build(
        Autoencoder2dConfig,
        "ch",
        "ch_mult",
        "num_res_blocks",
        "resolution",
        "z_channels",
        attn_resolutions=(),
        norm_groups=32,
        attn_type="vanilla",
        resamp_with_conv=True,
        tanh_out=False,
    )
    config.finish("dropout")
    attention = "linear" if linear else sizes.attn_type
    return replace(sizes, embed_dim=embed_dim, attn_type=attention)
