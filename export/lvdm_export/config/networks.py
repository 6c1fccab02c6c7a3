"""The networks' sizes in the authors' configuration files, under the authors' names."""

from lvdm_engines.errors import ConfigError
from lvdm_export.config.mapping import Section
from lvdm_export.nets.autoencoder2d import Autoencoder2dConfig
from lvdm_export.nets.autoencoder3d import Autoencoder3dConfig
from lvdm_export.nets.unet3d import UNet3dConfig


def read_unet(config: Section) -> UNet3dConfig:
    """Read `unet_config`. Raises ConfigError for unknown, missing or unsupported values."""
    params = config.section("params")
    config.ignore("target")
    config.finish()
    unet = UNet3dConfig(
        in_channels=params.whole("in_channels"),
        out_channels=params.whole("out_channels"),
        model_channels=params.whole("model_channels"),
        num_res_blocks=params.whole("num_res_blocks"),
        channel_mult=params.wholes("channel_mult", (1, 2, 4, 8)),
        attention_resolutions=params.wholes("attention_resolutions"),
        num_heads=params.whole("num_heads", -1),
        num_head_channels=params.whole("num_head_channels", -1),
        temporal_length=params.whole("temporal_length"),
        use_scale_shift_norm=params.switch("use_scale_shift_norm", False),
        num_classes=params.whole("num_classes", None),
        context_dim=params.whole("context_dim", None),
        use_temporal_transformer=params.switch("use_temporal_transformer", False),
        transformer_depth=params.whole("transformer_depth", 1),
        norm_groups=params.whole("norm_groups", 32),
    )
    params.fixed(
        dims=3,
        legacy=False,
        kernel_size_t=1,
        padding_t=0,
        use_relative_position=True,
        conv_resample=True,
        num_heads_upsample=-1,
        resblock_updown=False,
        n_embed=None,
    )
    params.ignore("image_size", "use_checkpoint", "use_fp16", "dropout")
    params.finish()
    _check_unet(params, unet)
    return unet


def _check_unet(params: Section, unet: UNet3dConfig) -> None:
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


def read_autoencoder3d(config: Section, embed_dim: int) -> Autoencoder3dConfig:
    """Read the `ddconfig` of a 3D autoencoder. Raises ConfigError as `read_unet` does."""
    z_channels = config.whole("z_channels")
    halves = {}
    for name, field in (("encoder", "downsample"), ("decoder", "upsample")):
        half = config.section(name)
        params = half.section("params")
        halves[name] = (params.whole("n_hiddens"), params.wholes(field))
        if params.whole("z_channels", z_channels) != z_channels:
            params.refuse("z_channels", f"{z_channels} as in ddconfig")
        groups = params.whole("norm_groups", 32)
        params.fixed(image_channel=3, norm_type="group", padding_type="replicate", double_z=True)
        params.finish()
        half.ignore("target")
        half.finish()
    if halves["encoder"] != halves["decoder"]:
        raise ConfigError(
            f"{config.path}: encoder {halves['encoder']} and decoder {halves['decoder']} disagree, "
            "expected the same n_hiddens and factors"
        )
    n_hiddens, factors = halves["encoder"]
    if len(factors) != 3:
        raise ConfigError(f"{config.path}.encoder: downsample needs three factors, got {factors}")
    try:
        return Autoencoder3dConfig(
            n_hiddens=n_hiddens,
            downsample=factors,
            z_channels=z_channels,
            embed_dim=embed_dim,
            norm_groups=groups,
        )
    except ValueError as err:
        raise ConfigError(f"{config.path}: {err}") from err


def read_autoencoder2d(config: Section, embed_dim: int) -> Autoencoder2dConfig:
    """Read the `ddconfig` of a 2D autoencoder. Raises ConfigError as `read_unet` does."""
    network = Autoencoder2dConfig(
        ch=config.whole("ch"),
        ch_mult=config.wholes("ch_mult"),
        num_res_blocks=config.whole("num_res_blocks"),
        attn_resolutions=config.wholes("attn_resolutions", ()),
        resolution=config.whole("resolution"),
        z_channels=config.whole("z_channels"),
        embed_dim=embed_dim,
        norm_groups=config.whole("norm_groups", 32),
    )
    config.fixed(
        in_channels=3,
        out_ch=3,
        resamp_with_conv=True,
        use_linear_attn=False,
        attn_type="vanilla",
        give_pre_end=False,
        tanh_out=False,
    )
    config.ignore("dropout")
    return network
