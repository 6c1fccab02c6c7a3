"""Guidance over text, alone and together with given frames, against the formula row by row."""

import numpy as np
import pytest

from lvdm_rt.diffusion.condition import plan_mask
from lvdm_rt.diffusion.guidance import TextCondition, guided

RNG = np.random.default_rng(3)
NOTHING = RNG.standard_normal((2, 3), dtype=np.float32)  # the context of no text
LEVEL = 9


def normal(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


class Denoiser:
    """A network that mixes all it is fed; it keeps how many rows each call had."""

    def __init__(self):
        self.rows = []

    def __call__(self, feeds):
        assert len({len(array) for array in feeds.values()}) == 1
        self.rows.append(len(feeds["latents"]))
        told = feeds["mask"].sum(axis=1) * (feeds["noise_level"] + 2) + feeds["timestep"]
        told = told + 3 * feeds["context"].reshape(len(told), -1).sum(axis=1) ** 2
        return np.sin(feeds["latents"] + told[:, None, None, None, None].astype(np.float32))


def given(frames, texts):
    """Masks and contexts of rows: the first latent of `frames` given, `texts` with words."""
    mask, context = plan_mask(len(frames), 4, []), np.stack([NOTHING] * len(frames))
    mask[frames, 0] = 1
    context[texts] = normal(sum(texts), 2, 3)
    return mask, context


def plain(x, mask, context, t, w_f, w_t):
    """The formula as it is written, in three calls of the network, for one row."""

    def e(mask, context):
        level = np.array([LEVEL if mask.any() else -1])
        feeds = {"latents": x, "timestep": np.array([t]), "noise_level": level}
        return Denoiser()({**feeds, "mask": mask, "context": context})

    bare, framed = e(0 * mask, NOTHING[None]), e(mask, NOTHING[None])
    return bare + (1 + w_f) * (framed - bare) + (1 + w_t) * (e(mask, context) - framed)


@pytest.mark.parametrize("frames", [[True, True], [False, False], [True, False]])
@pytest.mark.parametrize("texts", [[True, True], [False, True], [False, False]])
@pytest.mark.parametrize("weights", [(0.5, 14), (0, 3), (0.5, 0), (2, 2), (0, 0)])
def test_text_and_frames_guide_as_the_formula_says(frames, texts, weights):
    (w_f, w_t), x = weights, normal(2, 1, 4, 2, 2)
    mask, context = given(frames, texts)
    eps = guided(Denoiser(), mask, LEVEL, w_f, TextCondition(context, NOTHING, w_t))(x, 17)
    for row in range(2):
        one = slice(row, row + 1)
        expected = plain(x[one], mask[one], context[one], 17, w_f, w_t)
        np.testing.assert_allclose(eps[one], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("weights", "rows"),
    [((0, 0), 4), ((0, 3), 4 + 2), ((3, 0), 4 + 2 + 1), ((3, 3), 4 + 3), ((0.5, 3), 4 + 2 + 2)],
)
def test_a_branch_is_computed_for_the_rows_in_which_it_counts(weights, rows):
    mask, context = given([True, False, True, False], [True, True, False, False])
    call, (w_f, w_t) = Denoiser(), weights
    guided(call, mask, LEVEL, w_f, TextCondition(context, NOTHING, w_t))(normal(4, 1, 4, 2, 2), 5)
    assert call.rows == [rows]


def test_a_row_does_not_depend_on_those_beside_it():
    mask, context = given([True, False, True], [True, True, False])
    x = normal(3, 1, 4, 2, 2)

    def run(rows):
        text = TextCondition(context[rows], NOTHING, 14.0)
        return guided(Denoiser(), mask[rows], LEVEL, 0.5, text)(x[rows], 17)

    alone = np.concatenate([run([row]) for row in range(3)])
    np.testing.assert_array_equal(run([0, 1, 2]), alone)
    np.testing.assert_array_equal(run([2, 0, 1]), alone[[2, 0, 1]])


@pytest.mark.parametrize(("t", "rows"), [(4, 2), (5, 6), (7, 6), (9, 6), (10, 2)])
def test_outside_its_interval_guidance_costs_and_does_nothing(t, rows):
    mask, context = given([True, True], [True, True])
    call, x, text = Denoiser(), normal(2, 1, 4, 2, 2), TextCondition(context, NOTHING, 14.0)
    eps = guided(call, mask, LEVEL, 0.5, text, (5, 9))(x, t)
    assert call.rows == [rows]
    weights = (0.5, text) if rows > 2 else (0.0, text._replace(weight=0.0))
    np.testing.assert_array_equal(eps, guided(call, mask, LEVEL, *weights)(x, t))
