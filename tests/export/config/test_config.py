import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from lvdm_engines.errors import ConfigError
from lvdm_engines.manifest import InterpolateFacts, PredictFacts
from lvdm_export.config.bounded_file import read_bounded
from lvdm_export.config.yaml_config import parse_config, read_config
from lvdm_export.nets.autoencoder2d import Autoencoder2dConfig
from lvdm_export.nets.autoencoder3d import Autoencoder3dConfig
from lvdm_export.nets.unet3d import UNet3dConfig

PATH = Path("sky.yaml")
UNET = "model.params.unet_config.params"
ENCODER = "model.params.first_stage_config.params.ddconfig.encoder.params"


@pytest.fixture
def raw(official: Any) -> Any:
    return yaml.safe_load(official.config.read_text())


def edited(raw: Any, place: str, value: object) -> Any:
    """Return a copy with `place` (dotted) set, or removed where the value is `...`."""
    result = copy.deepcopy(raw)
    *parents, last = place.split(".")
    section = result
    for name in parents:
        section = section[name]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return result


def test_the_authors_layout_gives_networks_schedule_and_latent_statistics(raw: Any) -> None:
    found = parse_config(raw, PATH)
    assert found.denoiser is not None
    assert found.autoencoder is not None
    unet = found.denoiser.network_config()
    assert isinstance(unet, UNet3dConfig)
    assert (unet.model_channels, unet.num_classes, unet.channel_mult) == (8, 11, (1,))
    schedule = found.denoiser.schedule
    assert schedule is not None
    assert (schedule.kind, schedule.beta_start, schedule.beta_end) == (
        "sqrt-linear",
        0.0015,
        0.0155,
    )
    assert (found.denoiser.scale, found.denoiser.shift) == (0.5, 1.25)
    assert found.denoiser.frame_size == (8, 8)
    assert found.denoiser.predict == PredictFacts(5, 1, 4)
    assert found.denoiser.interpolate == InterpolateFacts(5)
    assert found.denoiser.noise_levels == 10
    assert found.autoencoder.network_config() == Autoencoder3dConfig(
        n_hiddens=4, downsample=(2, 2, 2), z_channels=2, embed_dim=2, norm_groups=2
    )


def test_a_model_without_a_mask_channel_makes_short_clips_only(raw: Any) -> None:
    plain = edited(edited(raw, f"{UNET}.in_channels", 2), f"{UNET}.num_classes", ...)
    plain = edited(plain, "model.params.max_noise_level", ...)
    record = parse_config(plain, PATH).denoiser
    assert record is not None
    assert record.predict is None
    assert record.interpolate is None
    assert record.noise_levels is None
    assert record.short is not None


def test_spatial_transformers_are_off_where_the_file_does_not_name_them(raw: Any) -> None:
    record = parse_config(edited(raw, f"{UNET}.use_temporal_transformer", ...), PATH).denoiser
    assert record is not None
    assert record.config["use_temporal_transformer"] is False


def test_numbers_that_yaml_takes_for_text_are_read(raw: Any) -> None:
    record = parse_config(edited(raw, "model.params.linear_start", "1e-3"), PATH).denoiser
    assert record is not None
    assert record.schedule is not None
    assert record.schedule.beta_start == 0.001


def test_a_two_dimensional_autoencoder_is_recognised_by_its_sizes(raw: Any) -> None:
    dd = {
        "double_z": True,
        "z_channels": 2,
        "resolution": 32,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 2, 4],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    found = parse_config(edited(raw, "model.params.first_stage_config.params.ddconfig", dd), PATH)
    assert found.autoencoder is not None
    assert isinstance(found.autoencoder.network_config(), Autoencoder2dConfig)
    assert found.autoencoder.frame_size == (16, 16)


def test_a_file_with_an_autoencoder_alone_is_read(raw: Any) -> None:
    alone = {"model": raw["model"]["params"]["first_stage_config"]}
    found = parse_config(alone, PATH)
    assert found.denoiser is None
    assert found.autoencoder is not None


@pytest.mark.parametrize("name", ["legacy", "num_heads_upsample", "use_fp16", "dropout"])
@pytest.mark.parametrize("value", [True, 8])
def test_options_without_effect_on_the_network_are_passed_over(
    raw: Any, name: str, value: object
) -> None:
    assert parse_config(edited(raw, f"{UNET}.{name}", value), PATH) == parse_config(raw, PATH)


def test_relative_positions_are_off_where_the_file_does_not_name_them(raw: Any) -> None:
    record = parse_config(edited(raw, f"{UNET}.use_relative_position", ...), PATH).denoiser
    assert record is not None
    assert record.config["use_relative_position"] is False


def test_a_stride_of_given_frames_other_than_both_ends_makes_no_infill_network(raw: Any) -> None:
    for stride, infills in ((4, True), (2, False)):
        place = "model.params.interp_frame_stride"
        record = parse_config(edited(raw, place, stride), PATH).denoiser
        assert record is not None
        assert (record.interpolate is not None) == infills


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (f"{UNET}.frobnicate", 1, r"unet_config\.params has unknown parameters: frobnicate"),
        (f"{UNET}.model_channels", ..., r"unet_config\.params\.model_channels is missing"),
        (f"{UNET}.model_channels", "many", r"model_channels is 'many', expected a whole number"),
        (f"{UNET}.model_channels", True, r"model_channels is true, expected a whole number"),
        (f"{UNET}.kernel_size_t", 3, r"padding_t is 0, expected 1, the only supported value"),
        (f"{UNET}.kernel_size_t", 2, r"kernel_size_t is 2, expected an odd number"),
        (f"{UNET}.nonlinearity_type", "gelu", "'gelu', expected silu or leaky_relu"),
        (f"{UNET}.cond_aug_mode", "time_embed", r"is 'time_embed', expected 'learned_embed'"),
        (f"{UNET}.in_channels", 2, r"num_classes is 11, expected none where there is no mask"),
        ("model.params.conditioning_key", "adm", r"'adm', expected one of concat, crossattn"),
        (f"{UNET}.in_channels", 4, r"in_channels is 4, expected out_channels 2, or one more"),
        (f"{UNET}.num_heads", ..., r"num_heads is missing"),
        (f"{UNET}.context_dim", 8, r"use_temporal_transformer is false and context_dim is 8"),
        (f"{UNET}.channel_mult", 2, r"channel_mult is 2, expected a list of whole numbers"),
        (f"{ENCODER}.padding_type", "zeros", r"is 'zeros', expected replicate or reflect or const"),
        (f"{ENCODER}.norm_type", "batch", r"encoder .*'batch'} and decoder .*'group'} disagree"),
        (f"{ENCODER}.double_z", False, r"double_z is false, expected true, the only supported"),
        (f"{ENCODER}.downsample", [2, 2, 4], r"encoder .* and decoder .* disagree"),
        (f"{ENCODER}.norm_groups", 1, r"encoder .*: 1, .* and decoder .*: 2, .* disagree"),
        (f"{ENCODER}.stride", 2, r"encoder\.params has unknown parameters: stride"),
        ("model.params.parameterization", "mu", r"parameterization is 'mu', expected eps, v or"),
        ("model.params.rescale_betas_zero_snr", True, r"is true, expected false, or parameteriz"),
        ("model.params.lora_args", {"rank": 4}, r"lora_args is .*, expected {}"),
        ("model.params.beta_schedule", "sqrt", r"beta_schedule is 'sqrt', expected one of linear"),
        ("model.params.linear_end", 2.0, r"expected 0 < beta_start <= beta_end < 1"),
        (
            "model.params.max_noise_level",
            12,
            r"max_noise_level is 12, expected at most num_c",
        ),
        ("model.params.channels", 3, r"channels is 3, expected 2, the network's out_channels"),
        ("model.params.image_size", [4, 4, 4], r"image_size is \[4, 4, 4\], expected one side"),
        ("model.params.image_size", 0, r"image_size is 0, expected one side"),
        ("model.params.image_size", ..., r"image_size is missing"),
        ("model.params.surprise", 1, r"model\.params has unknown parameters: surprise"),
        ("model.params", 3, r"sky\.yaml: model\.params is 3, expected a mapping"),
        ("model.params", ..., r"sky\.yaml: model\.params is missing"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(
    raw: Any, place: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(edited(raw, place, value), PATH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"[" * 5000, "is not YAML"),
        (b"a: 2001-99-99", "is not YAML"),
        (b"a: !!int ''", "is not YAML"),
        (b"a: !!bool x", "is not YAML"),
        (b"a: !!timestamp x", "is not YAML"),
        (b"", "is nothing, expected a mapping"),
        (b"model: {params: {a: 1}}", "neither unet_config nor ddconfig"),
        (b"model: !!python/object/apply:os.system ['touch created']", "is not YAML"),
    ],
)
def test_files_that_are_no_configuration_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "x.yaml")
    assert not (tmp_path / "created").exists()


def test_records_of_ours_refuse_unknown_and_impossible_sizes(ours: Any, tmp_path: Path) -> None:
    text = ours.config.read_text()
    path = tmp_path / "model.json"
    for old, new, message in (
        ('"schema": 1', '"schema": 9', "schema 9, expected 1"),
        ('"schema": 1', '"sheep": 1', "unknown field `sheep`"),
        ('"model_channels": 8', '"model_channels": "8"', "config of the unet3d: Expected `int`"),
        ("{", "[", "model.json: "),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ConfigError, match=message):
            read_config(path)
    with pytest.raises(ConfigError, match="cannot read the config"):
        read_config(tmp_path / "none.json")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.yaml")
    with pytest.raises(ConfigError, match="is no ordinary file"):
        read_bounded(tmp_path / "model.yaml")
