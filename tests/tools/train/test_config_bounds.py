"""What a run's YAML asks for is bounded, and whatever it says is accepted or refused in one line.

`DAMAGED_CONFIGS=1000 pytest tests/tools/train/test_config_bounds.py` tries more than every day.
"""

import os
from unittest.mock import Mock

import numpy as np
import pytest
import yaml
from toy_damage import damage
from toy_runs import AUTOENCODER, changed, train

from lvdm_engines.errors import ConfigError, LvdmError
from lvdm_tools.train import config, loop, networks, start
from lvdm_tools.train.start import latents

CASES = int(os.environ.get("DAMAGED_CONFIGS", "30"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
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
def test_an_autoencoder_run_of_any_size_is_refused_with_the_field(
    field, value, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(config, "MOST_VALUES", 10**8)
    monkeypatch.setattr(networks, "_memory", lambda: 16 << 30)
    with pytest.raises(ConfigError, match=message):
        train(changed(AUTOENCODER, {field: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network.model_channels": 10**9}, r"network: Expected `int` <= 65536"),
        ({"network.model_channels": 16384}, r"network would have .*e\+1\d parameters"),
        ({"network.num_res_blocks": 10**6}, r"network: Expected `int` <= 8"),
        ({"data.sequences": 10**9}, r"<= 1048576 - at `\$\.data\.sequences`"),
        ({"clips.0.latents": 10**9}, r"<= 4096 - at `\$\.clips\[0\]\.latents`"),
        ({"schedule": {"steps": 10**9}}, r"<= 1048576 - at `\$\.schedule\.steps`"),
    ],
)
def test_a_denoiser_run_of_any_size_is_refused_with_the_field(
    fields, message, tiny_denoiser, tmp_path, monkeypatch
):
    monkeypatch.setattr(networks, "_memory", lambda: 16 << 30)
    with pytest.raises(ConfigError, match=message):
        train(changed(tiny_denoiser, fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_that_fits_beside_its_optimizer_only_without_it_is_refused(tmp_path, monkeypatch):
    parameters = 100_000  # of the tiny autoencoder, about
    monkeypatch.setattr(networks, "_memory", lambda: 8 * parameters)
    with pytest.raises(ConfigError, match=r"expected at most 5e\+04 on this machine"):
        train(AUTOENCODER, tmp_path / "run")


def aliases_of_aliases(levels: int) -> str:
    nest: object = "x"
    for _ in range(levels):
        nest = [nest] * 9
    return yaml.safe_dump(nest)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (aliases_of_aliases(10), "more than 10000 nodes"),
        ("x" * (1 << 21), "is larger than"),
        ("seed: 2020-02-31", "is not YAML"),
        ("? [1, 2] : 3", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("autoencoder: 2020-01-01", "Object missing required field `kind`"),
        ("{kind: diffusion, name: 2020-01-01}", "Expected `str`, got `date`"),
    ],
)
def test_a_config_is_read_within_bounds(text, message, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        config.load(tmp_path / "c.yaml", "diffusion")
    assert str(tmp_path / "c.yaml") in str(caught.value)


@pytest.mark.parametrize("case", range(CASES))
def test_a_damaged_config_starts_a_run_or_is_refused_in_one_line(
    case, tiny_denoiser, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "train", Mock(return_value=0))
    monkeypatch.setattr(latents, "encode", Mock())
    monkeypatch.setattr(latents, "read", Mock(side_effect=KeyboardInterrupt))
    rng = np.random.default_rng([13, case])
    settings = (AUTOENCODER, tiny_denoiser)[case % 2]
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(settings))
    way = damage(file, rng)
    try:
        run = config.load(file, settings["kind"])
    except LvdmError as err:
        told = str(err)
        assert str(file) in told, (way, told)
        assert len(told) < 500, (way, told)
        return
    try:
        start.run_training(start.TrainingRequest(run, "synth", tmp_path / "run", Mock()))
    except (LvdmError, KeyboardInterrupt) as err:
        assert len(str(err)) < 1500, (way, err)  # noqa: PT017 - most changes go unnoticed
