"""The networks and the loop of the authors' code, beside ours."""

from collections import Counter
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from lvdm_engines.bundle import load_bundle
from lvdm_export.nets.autoencoder3d import Autoencoder3d
from lvdm_export.nets.unet3d import UNet3d
from lvdm_rt import GenerateOptions, Pipeline
from lvdm_tools.bench import official_layout
from lvdm_tools.bench.end_to_end import Busy, Watched, generate
from lvdm_tools.bench.models import random_network, sizes
from lvdm_tools.bench.official_loop import Official


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_authors_layout_computes_what_ours_does(prediction):
    network = random_network(UNet3d(replace(sizes("tiny").unet, prediction=prediction)), 1)
    if prediction == "v":
        network.velocity.alpha_bar.copy_(torch.linspace(0.99, 0.01, 1000))
    latents = torch.randn(2, 4, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1.0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    feeds = latents, torch.tensor([3, 700]), mask, torch.tensor([100, -1])
    with torch.inference_mode():
        expected, actual = network(*feeds), official_layout.forward(network, *feeds)
    # two orders of float32 sums, through 20 layers
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_authors_decoder_computes_what_ours_does():
    network = random_network(Autoencoder3d(sizes("tiny").autoencoder), 2)
    latents = torch.randn(1, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.decode(latents)
        actual = official_layout.use_transposed(network).decode(latents)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


class Counted:
    """Stands in for a network in torch: answers zeros, and counts the clips it was given."""

    def __init__(self):
        self.clips = Counter()

    def denoiser(self, latents, timestep, mask, noise_level):
        self.clips[tuple(mask[0].tolist()), int(noise_level)] += len(latents)
        return torch.zeros_like(latents)

    def decoder(self, latents):
        self.clips["decoded"] += latents.shape[2]
        return torch.zeros(1, 4 * latents.shape[2], 8, 8, 3, dtype=torch.uint8), torch.zeros(1)


class Session:
    """A session of ours that answers zeros, and counts the clips it was given."""

    backend = "cpu"

    def __init__(self, facts, clips):
        self.inputs, self.outputs, self.clips = facts.inputs, facts.outputs, clips

    def run(self, feeds):
        latents = feeds["latents"]
        if "mask" in feeds:
            for mask, level in zip(feeds["mask"], feeds["noise_level"], strict=True):
                self.clips[tuple(mask.tolist()), int(level)] += 1
            return {"eps": 0 * latents}
        torch_like = torch.zeros(len(latents), 16, 64, 64, 3, dtype=torch.uint8).numpy()
        return {"frames": torch_like, "mean": 0 * latents[:, 0, 0, 0, 0]}

    def close(self):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"guidance": 0.5, "noise_level": 100}])
def test_the_authors_loop_calls_the_networks_on_the_same_clips_as_ours(more):
    manifest, ours = load_bundle("sky-tiny").manifest, Counter()
    options = GenerateOptions(frames=60, sampler="ddim", steps=2, refine=0, **more)
    sessions = {
        name: Watched(Session(facts, ours), Busy()) for name, facts in manifest.graphs.items()
    }
    with Pipeline(manifest, sessions) as pipeline:
        assert generate(pipeline, options)["frames"] == 60
    official, theirs = Official(manifest), Counted()
    for name in official._calls:
        official._calls[name] = theirs.decoder if name == "decoder" else theirs.denoiser
    assert official.generate(options)["frames"] == 60
    assert theirs.clips.pop("decoded") == 16
    assert theirs.clips == ours
