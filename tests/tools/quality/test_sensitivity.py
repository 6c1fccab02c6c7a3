"""What each distance sees: clips beside themselves, damaged more and more."""

from types import SimpleNamespace

import numpy as np
import pytest
from toy_pipelines import PerfectPipeline

from lvdm_rt.pipeline import Pipeline
from lvdm_tools.data.synth import sky_clip
from lvdm_tools.quality.distances import frechet_distance, kernel_distance
from lvdm_tools.quality.networks import open_network

CLIPS = 12


class NormalisedPipeline(PerfectPipeline):
    """Its latents have the size that those of trained models have."""

    def encode(self, frames):
        return super().encode(frames) / 64.0 - 2


def noise(clips, level):
    rng = np.random.default_rng(0)
    return np.clip(clips + rng.normal(0, 6 * level, clips.shape), 0, 255).astype(np.uint8)


def blur(clips, level):
    shifts = range(-2 * level, 2 * level + 1)
    rows = np.mean([np.roll(clips, s, axis=2) for s in shifts], axis=0)
    return np.mean([np.roll(rows, s, axis=3) for s in shifts], axis=0).astype(np.uint8)


def shuffle(clips, level):
    """Exchange frames that are near each other, then any."""
    rng = np.random.default_rng(0)
    order = np.argsort(np.arange(16) + rng.uniform(0, (0, 3, 16)[level], 16))
    return clips[:, order]


def freeze(clips, level):
    """Show two frames only, then one."""
    hold = (1, 8, 16)[level]
    return clips[:, np.arange(16) // hold * hold]


DAMAGES = {"noise": noise, "blur": blur, "shuffled": shuffle, "frozen": freeze}


@pytest.fixture(scope="module", params=["random", "bundle"])
def placed(request):
    """Features of clips, and of the same more and more damaged, by a network that is here."""
    clips = np.stack([sky_clip(0, 16, 16, index=i) for i in range(CLIPS)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "open", lambda *_: NormalisedPipeline())
        with open_network(request.param) as network:
            return SimpleNamespace(
                network=network,
                clips=clips,
                real=network.run(clips),
                damaged={
                    name: [network.run(damage(clips, level)) for level in (1, 2)]
                    for name, damage in DAMAGES.items()
                },
            )


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_distance_grows_with_the_damage(placed, distance, damage):
    none = distance(placed.real, placed.real)
    some, more = (distance(rows, placed.real) for rows in placed.damaged[damage])
    assert none < some < more
    assert none <= 1e-9  # below 0 where it has no bias


def test_features_do_not_depend_on_the_size_of_a_batch(placed):
    single = np.concatenate([placed.network.run(clip[None]) for clip in placed.clips[:3]])
    np.testing.assert_allclose(placed.real[:3], single, rtol=1e-5, atol=1e-7)
