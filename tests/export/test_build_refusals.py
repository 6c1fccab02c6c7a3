"""Inputs that cannot become a bundle are refused before anything takes long."""

import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import yaml
from toy_checkpoints import quiet

from lvdm_engines.bundle import file_sha256
from lvdm_engines.errors import BackendError, CheckpointError, ConfigError
from lvdm_engines.manifest import ScheduleFacts
from lvdm_export import build as builder
from lvdm_export.build import build
from lvdm_export.checkpoint.keys import Checkpoint
from lvdm_export.checkpoint.noise_table import check_schedule
from lvdm_export.config.yaml_config import parse_config
from lvdm_export.inputs import BuildOptions, Source


def test_inputs_that_do_not_belong_together_are_refused_before_any_export(official, ours, tmp_path):
    mixed = {
        "predict": Source(official.config, official.checkpoint),
        "interpolate": Source(tmp_path / "other.json", ours.checkpoint),
    }
    record = ours.config.read_text().replace('"scale": 0.5', '"scale": 0.7')
    (tmp_path / "other.json").write_text(record)
    with pytest.raises(ConfigError, match=r"latent scale differs: \w+ has 0\.5, interpolate has 0"):
        build(BuildOptions(denoisers=mixed, out=tmp_path / "out"), quiet)
    autoencoder = ours.config.parent.parent / "autoencoder"
    wrong = Source(autoencoder / "model.json", autoencoder / "model.safetensors")
    with pytest.raises(ConfigError, match="describes an autoencoder, but short needs a denoiser"):
        build(BuildOptions(denoisers={"short": wrong}, out=tmp_path / "out"), quiet)
    alone = {"predict": Source(ours.config, ours.checkpoint)}
    with pytest.raises(ConfigError, match="name its checkpoint with --autoencoder"):
        build(BuildOptions(denoisers=alone, out=tmp_path / "out"), quiet)
    missing = {"predict": Source(official.config, official.checkpoint)}
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        build(
            BuildOptions(denoisers=missing, out=tmp_path / "out", autoencoder=tmp_path / "no.ckpt"),
            quiet,
        )
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_sha256_is_refused_where_one_is_asked_for(
    official, tmp_path, monkeypatch
):
    sources = {"predict": Source(official.config, official.checkpoint)}
    asked = {"denoisers": sources, "out": tmp_path / "out"}
    with pytest.raises(CheckpointError, match=r"has sha256 \w{64}, expected 'abc' of --sha256"):
        build(BuildOptions(**asked, sha256=("ABC",)), quiet)
    monkeypatch.setattr(builder, "export_graph", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # where the export begins
        build(BuildOptions(**asked, sha256=(file_sha256(official.checkpoint).upper(),)), quiet)


def test_without_onnx_runtime_the_export_is_refused_before_anything_is_read(
    official, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    sources = {"predict": Source(official.config, tmp_path / "none.ckpt")}
    with pytest.raises(BackendError, match=r"no ONNX Runtime is installed; pip install 'lvdm-rt\["):
        build(BuildOptions(denoisers=sources, out=tmp_path / "out"), quiet)


def test_a_config_that_disagrees_with_its_weights_is_refused_before_any_export(official, tmp_path):
    config = tmp_path / "wider.yaml"
    config.write_text(
        official.config.read_text().replace("model_channels: 8", "model_channels: 16")
    )
    lines = []
    wider = {"predict": Source(config, official.checkpoint)}
    with pytest.raises(
        CheckpointError, match=r"has shape \[32, 8\], but the config expects \[64, 16\]"
    ):
        build(BuildOptions(denoisers=wider, out=tmp_path / "out"), lines.append)
    assert lines == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("linear_end: 0.0155", "linear_end: 0.02", r"betas run from 0\.0015 to 0\.0155, .*0\.02"),
        ("timesteps: 1000", "timesteps: 500", r"betas has shape \[1000\], .* expects \[500\]"),
    ],
)
def test_a_schedule_that_the_weights_were_not_trained_on_is_refused(
    official, tmp_path, old, new, message
):
    config = tmp_path / "other.yaml"
    config.write_text(official.config.read_text().replace(old, new))
    source = {"predict": Source(config, official.checkpoint)}
    with pytest.raises(CheckpointError, match=message):
        build(BuildOptions(denoisers=source, out=tmp_path / "out"), quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_schedule_stored_in_half_precision_is_recognised(dtype):
    betas = (torch.linspace(0.0015**0.5, 0.0155**0.5, 1000) ** 2).to(dtype)
    stored = Checkpoint(Path("half.ckpt"), {"betas": (1000,)}, lambda _: betas, ours=False)
    check_schedule(ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.0155), stored)
    with pytest.raises(CheckpointError, match="betas run from"):
        check_schedule(ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.02), stored)


@pytest.mark.parametrize(
    ("given", "trained", "advice"),
    [
        ("predict", {"p_pred": 0.0, "p_interp": 0.9, "n_prevs": None}, "use --interpolate for it"),
        ("predict", {"p_interp": 1.0}, "network for interpolate, short;"),
        ("interpolate", {"p_pred": 0.5, "p_interp": 0.0}, "network for predict, short;"),
        ("interpolate", {"p_pred": 1.0}, "network for predict, short;"),
    ],
)
def test_swapped_networks_are_refused(official, tmp_path, given, trained, advice):
    content = yaml.safe_load(official.config.read_text())
    content["model"]["params"].update(trained)
    (tmp_path / "swapped.yaml").write_text(yaml.safe_dump(content))
    swapped = {given: Source(tmp_path / "swapped.yaml", official.checkpoint)}
    with pytest.raises(ConfigError, match=f"config given for {given} describes .*{advice}"):
        build(BuildOptions(denoisers=swapped, out=tmp_path / "out"), quiet)
    assert not (tmp_path / "out").exists()


def test_a_network_trained_for_both_may_be_given_for_both(official):
    params = yaml.safe_load(official.config.read_text())["model"]["params"]
    for chances in ({}, {"p_pred": 0.3, "p_interp": 0.3}, {"p_pred": 0.0, "p_interp": 0.0}):
        record = parse_config({"model": {"params": params | chances}}, official.config).denoiser
        assert (record.predict is None, record.interpolate is None) == (False, False)
