"""What networks that give v or x0 need to know of the noise, and how it is checked."""

from dataclasses import replace

import pytest
import torch
import yaml
from toy_checkpoints import UNET, filled, official_state, official_yaml

from lvdm_engines.errors import CheckpointError
from lvdm_engines.manifest import ScheduleFacts
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.noise_table import alpha_bar, check_schedule, with_table
from lvdm_export.checkpoint.weights import load_denoiser
from lvdm_export.config.yaml_config import parse_config, read_config
from lvdm_export.nets.unet3d import UNet3d
from lvdm_rt.diffusion.schedule import make_schedule

FACTS = ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.0155)
ZERO = ScheduleFacts("sqrt-linear", 1000, 0.0015, 0.0155, zero_snr=True)


def official(tmp_path, facts, *, kept=True):
    """Write a denoiser as the authors do; a table that ends in nothing is stored as 0 and 1."""
    network = filled(UNet3d(UNET), 1)
    state = official_state(network, network, torch.nn.Module())
    table = alpha_bar(facts).float()
    state["betas"] = 1 - table / torch.cat([torch.ones(1), table[:-1]])
    if facts.zero_snr:
        table[-1], state["betas"][-1] = 0.0, 1.0
    if kept:
        state["alphas_cumprod"] = table
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    return network, open_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("kind", ["sqrt-linear", "linear", "cosine"])
@pytest.mark.parametrize("steps", [2, 1000])
def test_the_table_is_the_one_that_the_runtime_samples_with(kind, steps, zero_snr):
    facts = ScheduleFacts(kind, steps, 0.0015, 0.0155, zero_snr=zero_snr)
    expected = make_schedule(kind, steps, 0.0015, 0.0155, zero_snr=zero_snr).alpha_bar
    assert torch.allclose(alpha_bar(facts), torch.from_numpy(expected), rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("facts", [FACTS, ZERO])
@pytest.mark.parametrize("prediction", ["v", "x0"])
@pytest.mark.parametrize("kept", [True, False])
def test_what_the_network_gives_becomes_noise(tmp_path, facts, prediction, kept):
    plain, checkpoint = official(tmp_path, facts, kept=kept)
    config = replace(UNET, prediction=prediction, timesteps=1000)
    network = load_denoiser(config, with_table(checkpoint, facts), ema=True)
    x, t = torch.randn(2, 2, 5, 4, 4), torch.tensor([400, 999])
    mask, level = torch.zeros(2, 5), torch.tensor([-1, 3])
    with torch.no_grad():
        eps, out = network(x, t, mask, level), plain(x, t, mask, level)
    a = alpha_bar(facts)[t][:, None, None, None, None]
    expected = a.sqrt() * out + (1 - a).sqrt() * x
    if prediction == "x0":
        expected = (x - a.sqrt() * out) / (1 - a).sqrt()
    assert torch.allclose(eps, expected.float(), rtol=1e-4, atol=1e-5)
    x_0 = (x - (1 - a).sqrt() * eps) / a.sqrt()  # as samplers find it, at no signal as well
    wanted = out if prediction == "x0" else a.sqrt() * x - (1 - a).sqrt() * out
    assert (x_0 - wanted).abs().max() < 0.01


def test_stored_betas_tell_a_rescaled_schedule_from_a_plain_one(tmp_path):
    for stored, other in ((FACTS, ZERO), (ZERO, FACTS)):
        _, checkpoint = official(tmp_path, stored)
        check_schedule(stored, checkpoint)
        with pytest.raises(CheckpointError, match=r"betas run from .* rescale_betas_zero_snr"):
            check_schedule(other, checkpoint)


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_the_authors_file_says_what_the_network_gives(tmp_path, kind):
    raw = official_yaml()
    raw["model"]["params"] |= {"parameterization": kind, "timesteps": 500}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(raw))
    record = read_config(tmp_path / "model.yaml").denoiser
    assert (record.config["prediction"], record.config["timesteps"]) == (kind, 500)


def test_a_rescaled_schedule_is_read_with_v(tmp_path):
    raw = official_yaml()
    raw["model"]["params"] |= {"parameterization": "v", "rescale_betas_zero_snr": True}
    assert parse_config(raw, tmp_path).denoiser.schedule == ZERO
