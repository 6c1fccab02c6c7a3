"""The scale of latents that training measured itself."""

import pytest
import torch
from toy_checkpoints import official_yaml

from lvdm_engines.errors import CheckpointError
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.config.model_json import scaled
from lvdm_export.config.yaml_config import parse_config


@pytest.fixture
def record(tmp_path):
    raw = official_yaml()
    raw["model"]["params"] |= {"scale_by_std": True, "scale_factor": 1.0}
    return parse_config(raw, tmp_path / "x.yaml").denoiser


def stored(tmp_path, **tensors):
    torch.save({"state_dict": {"w": torch.ones(2)} | tensors}, tmp_path / "x.ckpt")
    return open_checkpoint(tmp_path / "x.ckpt")


def test_a_measured_scale_is_read_from_the_checkpoint(record, tmp_path):
    assert record.scale is None
    assert scaled(record, stored(tmp_path, scale_factor=torch.tensor(0.25))).scale == 0.25


def test_a_scale_in_the_config_counts_more_than_a_stored_one(tmp_path):
    told = parse_config(official_yaml(), tmp_path / "x.yaml").denoiser
    assert scaled(told, stored(tmp_path, scale_factor=torch.tensor(0.25))).scale == 0.5


def test_a_checkpoint_without_a_scale_leaves_it_open(record, tmp_path):
    assert scaled(record, stored(tmp_path)).scale is None


def test_a_scale_of_several_numbers_is_refused(record, tmp_path):
    with pytest.raises(CheckpointError, match="scale_factor is not one number"):
        scaled(record, stored(tmp_path, scale_factor=torch.ones(3)))
