"""The built-in model that reads text shows what it is told."""

import numpy as np
import pytest
from toy_arrays import videos_of

from lvdm_engines.bundle import builtin_bundles
from lvdm_rt import GenerateOptions, Pipeline

SEEDS = 10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "sky" not in builtin_bundles(), reason="this checkout has no model that reads text"
    ),
]


@pytest.fixture(scope="module")
def colours():
    """Mean colours (seeds, 3) of short videos of a prompt, from the same noise for every prompt."""
    pytest.importorskip("tokenizers")
    found = {}
    with Pipeline.open("sky", "cpu") as pipeline:

        def colours(prompt):
            if prompt not in found:
                few = {"steps": 4, "refine": 0}  # colours are there at once
                options = GenerateOptions(frames=16, videos=SEEDS, seed=5, prompt=prompt, **few)
                videos = videos_of(pipeline, options)
                found[prompt] = np.stack([v.mean((0, 1, 2)) for v in videos.values()])
            return found[prompt]

        yield colours


@pytest.mark.parametrize(
    ("darker", "brighter"),
    [
        ("a clear sky at night", "a clear sky at noon"),
        ("heavy clouds at night", "heavy clouds at noon"),
        ("broken clouds in purple twilight", "broken clouds by day"),
    ],
)
def test_the_time_of_day_is_as_told_for_nine_of_ten_seeds(colours, darker, brighter):
    assert (colours(darker).mean(1) < colours(brighter).mean(1)).mean() >= 0.9


def redness(colours):
    return colours[:, 0] - colours[:, 2]


def test_a_sunset_is_redder_than_noon_for_nine_of_ten_seeds(colours):
    low, high = (colours(f"a clear sky {when}") for when in ("in orange evening light", "at noon"))
    assert (redness(low) > redness(high)).mean() >= 0.9


def test_without_words_anything_may_come(colours):
    told, untold = colours("a clear sky at night"), colours("")
    assert untold.mean(1).std() > told.mean(1).std()
