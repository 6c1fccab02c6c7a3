"""What captions name, measured on pixels."""

import numpy as np
import pytest

from lvdm_tools.data.captions import caption
from lvdm_tools.data.synth import sky_clip
from lvdm_tools.quality.prompts import followed

SIDE, FRAMES = 32, 16


@pytest.fixture(scope="module")
def skies():
    """Real clips (n, f, h, w, 3) and their captions: those to ask for, and others."""
    clips = np.stack([sky_clip(5, FRAMES, SIDE, index=index) for index in range(160)])
    captions = [caption(5, index, FRAMES // 2) for index in range(160)]
    return (clips[:60], captions[:60]), (clips[60:], captions[60:])


def measured(generated, skies):
    (real, captions), known = skies
    return followed(generated, real, captions, known)


def test_real_clips_show_what_their_captions_name_and_others_do_not(skies):
    (real, _), _ = skies
    mine = measured(real, skies)
    assert mine.shown == mine.real > 0.8
    assert set(mine.attributes) == {
        *("night", "low sun", "day", "overcast", "heavy clouds", "few clouds"),
        *("to the left", "to the right", "hills", "sun"),
    }
    assert measured(np.roll(real, 7, axis=0), skies).shown < 0.65


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda clips: clips[:, :, :, ::-1], {"to the left", "to the right"}),
        (lambda clips: clips[:, ::-1], {"to the left", "to the right"}),
        (lambda clips: clips // 4, {"day", "sun"}),
        (lambda clips: clips // 2 + 127, {"night"}),
        (lambda clips: (clips * [0.5, 1, 1]).astype(np.uint8), {"low sun"}),
        (lambda clips: np.concatenate([clips[:, :, :16], clips[:, :, 15::-1]], 2), {"hills"}),
    ],
    ids=["mirrored", "backwards", "dark", "bright", "little red", "no ground"],
)
def test_what_is_changed_in_the_pixels_is_missed(skies, change, lost):
    (real, _), _ = skies
    before, after = measured(real, skies).attributes, measured(change(real), skies).attributes
    for name in lost:
        assert after[name][0] <= before[name][0] - 0.4, name
        assert after[name][1:] == before[name][1:], name


def test_captions_without_a_known_word_cannot_be_measured(skies):
    (real, captions), known = skies
    assert followed(real, real, ["a street"] * len(captions), known) is None
