import numpy as np
import pytest

from lvdm_engines.errors import ConfigError
from lvdm_tools.data.synth import sky_clip
from lvdm_tools.quality.distances import frechet_distance
from lvdm_tools.quality.random_features import FEATURES, LEAST_CLIPS, features


@pytest.fixture(scope="module")
def skies():
    return [
        np.stack([sky_clip(0, 4, 16, index=first + i) for i in range(LEAST_CLIPS)])
        for first in (0, 1000)
    ]


def test_the_space_is_pinned():
    # Numbers in reports are comparable only as long as these stay.
    ramp = np.arange(4 * 16 * 16 * 3, dtype=np.uint32).reshape(1, 4, 16, 16, 3) % 251
    placed = features(ramp.astype(np.uint8))
    assert placed.shape == (1, FEATURES)
    np.testing.assert_allclose(placed[0, :3], [0.28354, 0.38401, -0.20223], rtol=1e-4)


def test_real_clips_are_nearer_to_real_clips_than_damaged_ones_are(skies):
    other = skies[1]
    real = features(skies[0])
    damaged = {
        "grey": np.broadcast_to(other.mean((2, 3), keepdims=True), other.shape).astype(np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, other.shape, np.uint8),
        "few": np.tile(other[:4], (LEAST_CLIPS // 4, 1, 1, 1, 1)),
    }
    floor = frechet_distance(features(other), real)
    ratios = {k: frechet_distance(features(v), real) / floor for k, v in damaged.items()}
    assert ratios["grey"] > 10
    assert ratios["noise"] > 10
    assert ratios["few"] > 3


def test_clips_of_any_size_have_a_place():
    for size in (8, 64, 80):
        assert features(np.zeros((1, 4, size, size, 3), np.uint8)).shape == (1, FEATURES)


def test_what_is_no_clip_is_refused():
    with pytest.raises(ConfigError, match="expected uint8"):
        features(np.zeros((2, 3, 8, 8, 3), np.uint8))
