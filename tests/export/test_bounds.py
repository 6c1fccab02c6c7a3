"""What files ask for is bounded before anything is allocated, and fits before anything is long."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from toy import model_facts as toy_facts

from lvdm_engines.errors import CheckpointError, ConfigError
from lvdm_export import build as builder
from lvdm_export.checkpoint import weights
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.config.model_facts import model_facts
from lvdm_export.config.model_json import read_record
from lvdm_export.config.yaml_config import read_config
from lvdm_export.graph.graphs import denoiser_graph
from lvdm_export.graph.sizes_fit import check_sizes
from lvdm_export.inputs import BuildOptions, Source
from lvdm_export.nets.autoencoder2d import Autoencoder2dConfig
from lvdm_export.nets.autoencoder3d import Autoencoder3dConfig
from lvdm_export.nets.unet3d import UNet3dConfig


def edited(official: Any, path: Path, old: str, new: str) -> Path:
    text = official.config.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model_channels: 8", "model_channels: 1000000000", r"expected a whole number <= 65536"),
        ("model_channels: 8", "model_channels: 2020-01-01", r"expected a whole number"),
        ("num_res_blocks: 1", "num_res_blocks: 1000000", r"expected a whole number <= 8"),
        ("n_hiddens: 4", "n_hiddens: 1000000000", r"expected a whole number <= 65536"),
        ("timesteps: 1000", "timesteps: 99999999999", r"expected a whole number <= 1048576"),
    ],
)
def test_sizes_that_no_network_has_are_refused_where_they_are_read(
    official: Any, tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"huge\.yaml: .* is .*, {message}"):
        read_config(edited(official, tmp_path / "huge.yaml", old, new))


@pytest.mark.parametrize(
    "config",
    [
        UNet3dConfig(model_channels=1 << 16),
        UNet3dConfig(model_channels=32, num_classes=1 << 20, channel_mult=(256,) * 8),
        Autoencoder3dConfig(n_hiddens=1 << 16),
        Autoencoder2dConfig(ch=1 << 16),
    ],
)
def test_a_network_of_too_many_parameters_is_refused_without_memory(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"would have .*e\+\d\d parameters, expected at most"):
        weights.build(config)


def test_heads_that_do_not_share_their_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="8 channels do not divide into 3 heads"):
        weights.build(
            UNet3dConfig(
                model_channels=8,
                norm_groups=4,
                num_heads=3,
                channel_mult=(1,),
                attention_resolutions=(1,),
            )
        )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("scale_factor: 0.5", "scale_factor: .nan", "scale_factor is nan, expected a finite"),
        (
            "image_size: 4\n",
            "image_size: [1, 16384]\n",
            "Expected `int` <=",
        ),
        ("image_size: 4\n", "image_size: 16384\n", "one window holds"),
        ("max_noise_level: 10", "max_noise_level: 2", None),
    ],
)
def test_facts_that_no_manifest_can_say_are_refused_before_any_export(
    official: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: Any
) -> None:
    exported: list[tuple[str, ...]] = []

    def export(_target: Any, _graph: Any, names: tuple[str, ...]) -> Any:
        exported.append(names)
        raise ConfigError("enough")

    monkeypatch.setattr(builder, "export_graph", export)
    source = Source(edited(official, tmp_path / "x.yaml", old, new), official.checkpoint)
    with pytest.raises(ConfigError, match=message and rf"x\.yaml: .*{message}") as caught:
        builder.build(BuildOptions(denoisers={"predict": source}, out=tmp_path / "out"), str)
    assert (str(caught.value) == "enough") == bool(exported) == (message is None)


def test_levels_that_halve_an_odd_side_are_refused_before_any_export() -> None:
    model = toy_facts()
    config = UNet3dConfig(
        in_channels=3,
        out_channels=2,
        model_channels=8,
        num_res_blocks=1,
        channel_mult=(1, 1, 1, 1),
        attention_resolutions=(),
        num_classes=11,
        norm_groups=4,
    )
    network: Any = weights.build(config)
    with pytest.raises(ConfigError, match=r"does not fit predict, latents float32 \(b, 2, 4, 2, 2"):
        check_sizes(denoiser_graph(network, ("predict",), model), "predict", model)
    network = weights.build(dataclasses.replace(config, channel_mult=(1,), num_classes=None))
    with pytest.raises(ConfigError, match=r"does not fit predict: input noise_level .* is missing"):
        check_sizes(denoiser_graph(network, ("predict",), model), "predict", model)


@pytest.mark.parametrize(
    ("sizes", "facts", "message"),
    [
        ({"num_classes": 10}, {"noise_levels": 11}, "noise_levels is 11, but num_classes is 10"),
        ({"prediction": "v", "timesteps": 500}, {}, "timesteps is 500, but the schedule has 1000"),
    ],
)
def test_a_table_without_a_row_for_every_number_is_refused(
    ours: Any, sizes: dict[str, Any], facts: dict[str, Any], message: str
) -> None:
    record = read_record(ours.config)
    autoencoder = read_record(ours.config.parents[1] / "autoencoder/model.json")
    changed = replace(record, config=record.config | sizes, **facts)
    with pytest.raises(ConfigError, match=f"the config of predict: {message}"):
        model_facts({"predict": changed}, autoencoder)


def test_a_tensor_that_repeats_one_value_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(1000, 1000), "b": torch.ones(3)}, tmp_path / "x.ckpt")
    checkpoint = open_checkpoint(tmp_path / "x.ckpt")
    assert checkpoint.read("b").tolist() == [1, 1, 1]
    with pytest.raises(CheckpointError, match=r"x\.ckpt: w holds each value many times over"):
        checkpoint.read("w")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"config": ' + b'{"a":' * 100_000, r"model\.json: maximum recursion"),
        (b" " * (1 << 20) + b"{}", "is larger than"),
        (b'{"kind": "unet3d", "config": {"model_channels": 1000000000}}', r"json: .* <= 65536"),
        (b'{"kind": "unet3d", "config": {}, "decode_window": -5}', r"json: .* >= 1"),
        (b'{"kind": "unet3d", "config": {"\xff": 1}}', r"model\.json: .*invalid"),
    ],
)
def test_records_are_read_within_bounds(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(tmp_path / "model.json")
    assert str(tmp_path) in str(caught.value)
