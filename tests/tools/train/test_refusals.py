"""Configs, data and folders that a run refuses."""

import pytest
import yaml
from toy_runs import AUTOENCODER, changed, train

from lvdm_engines.errors import ConfigError, LvdmError, TrainingError
from lvdm_tools import cli
from lvdm_tools.train import config, networks


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("seed", 2, "seed: 2 here, 1 there"),
        ("network.n_hiddens", 8, r"network\.n_hiddens: 8 here, 4 there"),
        ("optimizer.learning_rate", 2e-3, r"optimizer\.learning_rate"),
        ("loss.adversarial", None, r"loss\.adversarial"),
    ],
)
def test_a_resume_with_another_config_names_the_field(autoencoder, field, value, named):
    with pytest.raises(TrainingError, match=named):
        train(changed(AUTOENCODER, {field: value}), autoencoder, resume=True)


def test_a_run_is_neither_overwritten_nor_resumed_from_nothing(autoencoder, tmp_path):
    with pytest.raises(TrainingError, match="already holds a run: pass --resume"):
        train(AUTOENCODER, autoencoder)
    with pytest.raises(TrainingError, match="holds no run to resume"):
        train(AUTOENCODER, tmp_path, resume=True)
    with pytest.raises(TrainingError, match="already at step 9 of 8"):
        train({**AUTOENCODER, "steps": 8}, autoencoder, resume=True)


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(config, "MOST_VALUES", 10**8)
    monkeypatch.setattr(networks, "_memory", lambda: 16 << 30)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("stepz", 3, "unknown field `stepz`"),
        ("optimizer.rate", 3, r"unknown field `rate` - at `\$\.optimizer`"),
        ("network.width", 3, "network has the unknown field width"),
        ("network.downsample", [4, 8, 3], "powers of two"),
        ("network.norm_groups", 0, "norm_groups is 0, expected 1 or more"),
        ("network.norm_groups", 3, r"network: num_channels \(8\) must be divisible"),
        ("steps", 0, r"Expected `int` >= 1 - at `\$\.steps`"),
        ("seed", -1, r"Expected `int` >= 0 - at `\$\.seed`"),
        ("ema", 1.5, r"Expected `float` < 1.0 - at `\$\.ema`"),
        ("optimizer.weight_decay", -1, r">= 0.0 - at `\$\.optimizer\.weight_decay`"),
        ("data.size", [16, 20], "width 20 is not divisible"),
        ("data.frames", 6, "frames 6 is not divisible"),
        ("crop", [8, 12], "width 12 is not divisible"),
        ("crop", [32, 8], r"crop is \(32, 8\), expected at most data.size"),
        ("seed", 2**64, r"Expected `int` <= 9223372036854775807 - at `\$\.seed`"),
        ("optimizer.learning_rate", float("inf"), r"<= 1\.79.* at `\$\.optimizer\.learning_rate`"),
        ("loss.kl", float("inf"), r"<= 1\.79.* - at `\$\.loss\.kl`"),
        ("loss.adversarial.layers", 6, r"adversarial\.layers is 6: .* 16×16 pixels are too small"),
        ("device.accelerator", "abacus", "device 'abacus' cannot be used"),
        ("steps", 10**12, r"<= 2147483647 - at `\$\.steps`"),
        ("batch", 10**6, r"<= 65536 - at `\$\.batch`"),
        ("batch", 65536, r"one batch or sequence holds 2e\+08 values"),
        ("name", "x" * 201, r"length <= 200 - at `\$\.name`"),
        ("data.frames", 10**9, r"<= 4096 - at `\$\.data\.frames`"),
        ("data.size", [10**9, 16], r"<= 16384 - at `\$\.data\.size\[0\]`"),
        ("data.size", "2020-01-01", r"Expected `array`, got `str` - at `\$\.data\.size`"),
        ("device.threads", 10**6, r"<= 1024 - at `\$\.device\.threads`"),
        ("device.devices", 10**6, r"<= 64 - at `\$\.device\.devices`"),
        ("network.n_hiddens", 10**9, r"network: Expected `int` <= 65536"),
        ("network.n_hiddens", 16384, r"network would have .*e\+1\d parameters, expected at most"),
        ("loss.adversarial.channels", 10**9, r"<= 4096 - at `\$\.loss\.adversarial\.channels`"),
        ("loss.adversarial.layers", 10**9, r"<= 8 - at `\$\.loss\.adversarial\.layers`"),
        ("initial_logvar", float("nan"), r"at `\$\.initial_logvar`"),
    ],
)
@pytest.mark.usefixtures("small_machine")
def test_an_impossible_autoencoder_config_is_refused_with_the_field(
    field, value, message, tmp_path
):
    with pytest.raises((ConfigError, TrainingError), match=message):
        train(changed(AUTOENCODER, {field: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"clips.0.stride": 4}, r"clips\[0\] \(predict\) spans 5 latents, .* to 20"),
        ({"clips.1.latents": 2}, r"clips\[1\] \(interpolate\) needs at least 3 latents"),
        ({"network.in_channels": 4}, r"need a mask: network\.in_channels 5"),
        ({"network.num_classes": 10}, r"num_classes is 10: raise it to 251"),
        ({"noise_levels": 2000}, "noise_levels is 2000, expected 0..1000"),
        ({"autoencoder": "nowhere"}, "nowhere holds no trained autoencoder"),
        ({"data.window": 6}, r"data\.window is 6, expected a multiple"),
        ({"network.channel_mult": [1, 1, 1]}, r"data\.size is .16, 16., expected multiples of 32"),
        ({"network.norm_groups": 3}, r"network: num_channels \(8\) must be divisible"),
        ({"network.num_heads": 3}, "network: .* change its sizes"),
        ({"clips.0.probability": float("inf")}, r"<= 1\.79.* at `\$\.clips"),
        ({"network.prediction": "v", "schedule": {"steps": 500}}, "timesteps is 1000, expected"),
        ({"network.model_channels": 10**9}, r"network: Expected `int` <= 65536"),
        ({"network.model_channels": 16384}, r"network would have .*e\+1\d parameters"),
        ({"network.num_res_blocks": 10**6}, r"network: Expected `int` <= 8"),
        ({"data.sequences": 10**9}, r"<= 1048576 - at `\$\.data\.sequences`"),
        ({"clips.0.latents": 10**9}, r"<= 4096 - at `\$\.clips\[0\]\.latents`"),
        ({"schedule": {"steps": 10**9}}, r"<= 1048576 - at `\$\.schedule\.steps`"),
    ],
)
@pytest.mark.usefixtures("small_machine")
def test_an_impossible_denoiser_config_is_refused_with_the_field(
    fields, message, tiny_denoiser, tmp_path
):
    with pytest.raises(LvdmError, match=message):
        train(changed(tiny_denoiser, fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_starting_from_a_network_of_other_sizes_is_refused(autoencoder, tmp_path):
    settings = changed(AUTOENCODER, {"start_from": str(autoencoder), "network.norm_groups": 2})
    with pytest.raises(ConfigError, match="start_from holds another network"):
        train(settings, tmp_path / "run")


def test_starting_a_denoiser_from_another_model_is_refused(
    denoiser, autoencoder, tiny_denoiser, tmp_path
):
    settings = changed(tiny_denoiser, {"start_from": str(denoiser), "network.num_heads": 4})
    with pytest.raises(ConfigError, match=r"start_from .* num_heads 2 instead of 4"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(LvdmError, match="autoencoder3d, expected unet3d"):
        train(changed(tiny_denoiser, {"start_from": str(autoencoder)}), tmp_path / "other")


def test_a_data_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(TrainingError, match="holds no readable video"):
        train(AUTOENCODER, tmp_path / "run", data=str(tmp_path / "data"))


def test_a_config_of_the_other_kind_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(AUTOENCODER))
    with pytest.raises(ConfigError, match="a run of train autoencoder, not of train diffusion"):
        config.load(tmp_path / "c.yaml", "diffusion")


def test_every_ready_config_can_be_read():
    names = [path.stem for path in config.find("sky-tiny").parent.glob("*.yaml")]
    assert {"sky-predict", "taichi-interpolate", "ucf-short", "toy", "sky-tiny"} <= set(names)
    for name in names:
        _, _, kind = name.rpartition("-")
        config.load(config.find(name), kind if kind in ("autoencoder", "distill") else "diffusion")


def test_the_command_line_explains_an_error_in_one_line(tmp_path, capsys):
    words = "train autoencoder --config nope --data synth --out"
    assert cli.run([*words.split(), str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("lvdm-tools: there is no config file nope; the ready configs are")
    assert message.count("\n") == 1


def test_a_folder_with_something_else_is_no_place_for_a_run(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("mine")
    with pytest.raises(TrainingError, match="holds model, but no run: choose another"):
        train(AUTOENCODER, tmp_path)
    assert (tmp_path / "model" / "model.json").read_text() == "mine"
