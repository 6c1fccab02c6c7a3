import numpy as np
import toy

from lvdm_engines.manifest import LatentFacts
from lvdm_export.graph.preview import fitted

BIAS, WEIGHTS = np.array([120.0, 130.0, 110.0]), np.array([[9.0, -3.0, 1.0], [2.0, 5.0, -8.0]])
MODEL = toy.model_facts(latent=LatentFacts(channels=2, size=(2, 2), scale=1.0, shift=0.0))


def encode(frames):
    """Channels: how bright a block is, and how much redder than blue."""
    assert (frames.dtype, frames.shape) == (np.uint8, (1, 16, 16, 16, 3))
    r, g, b = np.moveaxis(frames.reshape(1, 4, 4, 2, 8, 2, 8, 3).mean((2, 4, 6)), -1, 0) / 64 - 2
    return np.stack([r + g + b, r - b], axis=1).astype(np.float32)


def linear(latents):
    levels = np.moveaxis(latents, 1, -1) @ WEIGHTS + BIAS  # (1, t, h, w, 3)
    return np.rint(levels).astype(np.uint8).repeat(4, 1).repeat(8, 2).repeat(8, 3)


def test_a_decoder_that_is_linear_is_found_again():
    found = fitted(MODEL, encode, linear)
    np.testing.assert_allclose(found.map.bias, BIAS, atol=0.05)
    np.testing.assert_allclose(found.map.weights, WEIGHTS, atol=0.05)
    assert found.r2 > 0.99
    assert found.levels < 0.5  # what bytes round


def test_what_no_line_explains_is_told():
    def saw(latents):
        return linear(latents) % 64 * 4

    assert fitted(MODEL, encode, saw).r2 < 0.9


def test_a_decoder_that_shows_one_colour_has_nothing_to_explain():
    found = fitted(MODEL, encode, lambda latents: np.full((1, 16, 16, 16, 3), 90, np.uint8))
    assert found.r2 == 0
    np.testing.assert_allclose(found.map.bias, 90, atol=1e-3)


def test_the_same_fit_comes_out_each_time():
    assert fitted(MODEL, encode, linear) == fitted(MODEL, encode, linear)
