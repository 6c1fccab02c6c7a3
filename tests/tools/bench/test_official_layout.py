"""Steps of the denoiser in two layouts."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from lvdm_export.nets.unet3d import UNet3d
from lvdm_tools.bench import official_layout
from lvdm_tools.bench.models import random_network, sizes


def test_the_authors_layout_computes_what_ours_does():
    network = random_network(UNet3d(sizes("tiny").unet), 1)
    latents = torch.randn(2, 4, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1.0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    feeds = latents, torch.tensor([3, 700]), mask, torch.tensor([100, -1])
    with torch.inference_mode():
        expected, actual = network(*feeds), official_layout.forward(network, *feeds)
    # two orders of float32 sums, through 20 layers
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_every_phase_runs_at_toy_sizes():
    command = [sys.executable, "-m", "lvdm_tools.bench.unet_step", "--small", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    phases = [line.partition(":")[0] for line in done.stdout.splitlines()]
    expected = ["make-checkpoint", "export-predictor", "time-steps", "export-decoder", "decode"]
    assert phases == expected
    assert "frames [1, 16, 32, 32, 3]" in done.stdout
