"""What a run's YAML asks for is bounded, and whatever it says is accepted or refused in one line.

`DAMAGED_CONFIGS=1000 pytest tests/tools/train/test_config_bounds.py` tries more than every day.
"""

import os
from unittest.mock import Mock

import numpy as np
import pytest
import yaml
from toy_damage import damage
from toy_runs import AUTOENCODER, train

from lvdm_engines.errors import ConfigError, LvdmError
from lvdm_tools.train import config, loop, networks, start
from lvdm_tools.train.start import latents

CASES = int(os.environ.get("DAMAGED_CONFIGS", "30"))


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
        ("\x89PNG\udcff\udcfe", "is not YAML"),  # no UTF-8
        ("x" * (1 << 21), "is larger than"),
        ("seed: 2020-02-31", "is not YAML"),
        ("? [1, 2] : 3", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("autoencoder: 2020-01-01", "Object missing required field `kind`"),
        ("{kind: diffusion, name: 2020-01-01}", "Expected `str`, got `date`"),
    ],
)
def test_a_config_is_read_within_bounds(text, message, tmp_path):
    (tmp_path / "c.yaml").write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=message) as caught:
        config.load(tmp_path / "c.yaml", "diffusion")
    assert str(tmp_path / "c.yaml") in str(caught.value)


@pytest.mark.slow
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
