import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lvdm_engines.errors import CheckpointError
from lvdm_tools.train.autoencoder import losses
from lvdm_tools.train.autoencoder.discriminator import PatchDiscriminator3d
from lvdm_tools.train.autoencoder.lpips import _BLOCKS, Lpips
from lvdm_tools.train.config import Optimizer, Perceptual
from lvdm_tools.train.learner import learning_rate


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_kl_of_a_posterior_is_half_its_squared_shift_per_latent(shift):
    mean, logvar = torch.full((2, 4, 2, 3, 3), shift), torch.zeros(2, 4, 2, 3, 3)
    found = losses.kl_per_pixel(mean, logvar, pixels=144)
    assert found.item() == pytest.approx(0.5 * shift**2 * (4 * 2 * 3 * 3) / 144)


def test_hinge_loss_is_zero_once_both_margins_are_kept():
    real, fake = torch.full((3, 1), 1.5), torch.full((3, 1), -1.0)
    assert losses.hinge_discriminator(real, fake).item() == 0.0
    assert losses.hinge_discriminator(-real, -fake).item() == pytest.approx(0.5 * (2.5 + 2.0))


def test_adaptive_weight_is_the_ratio_of_the_gradients():
    last = torch.ones(3, requires_grad=True)
    weight = losses.adaptive_weight((6 * last).sum(), (2 * last).sum(), last)
    assert weight.item() == pytest.approx(3.0, rel=1e-3)  # 1e-4 in the denominator


def test_a_discriminator_scores_patches_of_short_clips():
    scores = PatchDiscriminator3d(channels=8, layers=2)(torch.zeros(2, 3, 4, 32, 32))
    assert scores.shape[:3] == (2, 1, 1)
    assert min(scores.shape[3:]) > 1


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_learning_rate_warms_up_and_falls_to_zero(decay):
    settings = Optimizer(learning_rate=1.0, decay=decay, warmup=10)
    rates = [learning_rate(settings, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert all(np.diff(rates[10:]) < 0)


@pytest.fixture
def lpips_files(tmp_path):
    rng = torch.Generator().manual_seed(0)
    vgg, heads, inputs = {}, {}, 3
    for b, block in enumerate(_BLOCKS):
        for index, width in block:
            vgg[f"features.{index}.weight"] = torch.randn(width, inputs, 3, 3, generator=rng) * 0.05
            vgg[f"features.{index}.bias"] = torch.zeros(width)
            inputs = width
        heads[f"lin{b}.model.1.weight"] = torch.rand(1, inputs, 1, 1, generator=rng)
    vgg["classifier.0.weight"] = torch.zeros(2, 2)
    save_file(vgg, tmp_path / "vgg.safetensors")
    torch.save(heads, tmp_path / "heads.pth")
    return Perceptual(tmp_path / "vgg.safetensors", tmp_path / "heads.pth")


def test_perceptual_distance_is_zero_for_equal_frames_and_grows_with_the_error(lpips_files):
    distance = Lpips.load(lpips_files)
    frames = torch.rand(1, 3, 2, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(2))
    found = [distance(frames, frames + s * noise).item() for s in (0.0, 0.05, 0.2)]
    assert found[0] == 0.0
    assert 0 < found[1] < found[2]


def test_perceptual_gradients_are_finite_where_no_channel_answers(lpips_files):
    distance = Lpips.load(lpips_files)
    decoded = distance.mean.view(1, 3, 1, 1, 1).repeat(1, 1, 1, 16, 16).requires_grad_()
    distance(torch.rand(decoded.shape, generator=torch.Generator()), decoded).backward()
    assert decoded.grad.isfinite().all()


def test_perceptual_weights_that_are_no_checkpoint_are_refused(lpips_files):
    for garbage in (b"not a checkpoint", b"", b"\x80\x02}q\x00."):
        lpips_files.heads.write_bytes(garbage)
        with pytest.raises(CheckpointError, match="cannot read LPIPS weights from"):
            Lpips.load(lpips_files)


def test_perceptual_weights_without_a_layer_are_refused_by_name(lpips_files):
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, lpips_files.vgg)
    with pytest.raises(CheckpointError, match=r"nothing for features\.0\.bias"):
        Lpips.load(lpips_files)


def test_the_motion_loss_sees_changes_only():
    frames = torch.rand(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert losses.motion(frames, frames + 0.5).item() == pytest.approx(0.0, abs=1e-6)
    flicker = torch.tensor([0.1, -0.1, 0.1, -0.1]).view(4, 1, 1)
    assert losses.motion(frames, frames + flicker).item() == pytest.approx(0.2, rel=1e-4)


def test_the_chroma_loss_sees_colours_only():
    frames = torch.rand(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert losses.chroma(frames, frames + 0.5).item() == pytest.approx(0.0, abs=1e-6)
    redder = torch.tensor([0.3, 0.0, 0.0]).view(3, 1, 1, 1)
    # red is off by 0.2 from the pixel's grey, green and blue by 0.1 each
    assert losses.chroma(frames, frames + redder).item() == pytest.approx(0.4 / 3, rel=1e-4)
