"""What a synthetic sky shows, in words drawn from its own parameters.

Every caption is a pure function of (seed, clip index, frame): the same facts, in varied wording and
with some of them left out, as people describe pictures. Knows nothing of pixels or files.
"""

import math
from collections.abc import Sequence

import numpy as np

from lvdm_tools.data.synth import Sky, draw_sky, sun_height

_WORDS = 0xCA9  # tells the draws of words from those of skies
# Times of the day by the sine of the sun's height up to which they last; rising and setting differ.
_TIMES: tuple[tuple[float, Sequence[str], Sequence[str]], ...] = (
    (-0.05, ("at night", "by night", "under a dark night sky", "in moonlight"), ()),
    (0.02, ("at dawn", "before sunrise", "in purple twilight"), ("at dusk", "in purple twilight")),
    (0.16, ("at sunrise", "in orange morning light"), ("at sunset", "in orange evening light")),
    (0.45, ("in the morning", "by day"), ("in the afternoon", "by day")),
    (math.inf, ("at noon", "in bright daylight", "under a deep blue sky", "at midday"), ()),
)
_COLOURFUL = ("orange", "purple", "blue", "bright")  # which an overcast sky is not
_OVERCAST = ("overcast", "an overcast sky", "a grey sky", "dull grey clouds")
# Clouds by the field value above which the main deck stands.
_COVERS: tuple[tuple[float, Sequence[str]], ...] = (
    (0.05, ("heavy clouds", "a cloudy sky", "thick clouds")),
    (0.5, ("broken clouds", "a partly cloudy sky", "drifting clouds")),
    (math.inf, ("a clear sky", "few clouds", "a nearly clear sky", "small scattered clouds")),
)
_FAST = 0.0105  # frame heights per frame


def caption(seed: int, index: int, frame: int = 0) -> str:
    """Describe clip `index` of data set `seed` as it is at `frame`, in one short line of English.

    Time of day (colour), clouds, their drift, hills and sun; each can be left out, but one is told.
    """
    sky = draw_sky(seed, index)
    rng = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, index, frame, _WORDS]))
    )
    clouds, time = _pick(rng, _clouds(sky)), _pick(rng, _time(sky, frame))
    parts = [clouds, time] if rng.random() < 0.8 else [[clouds, time][int(rng.integers(2))]]
    if rng.random() < 0.25:
        parts.reverse()
    parts += [_pick(rng, words) for words in _details(sky, frame) if rng.random() < 0.5]
    return (", " if rng.random() < 0.5 else " ").join(parts)


def _time(sky: Sky, frame: int) -> Sequence[str]:
    height = float(sun_height(sky, np.array([frame]))[0])
    rising = math.cos(sky.day_phase + sky.day_rate * frame) * sky.day_rate > 0
    morning, evening = next((up, down) for limit, up, down in _TIMES if height <= limit)
    words = morning if rising or not evening else evening
    if sky.overcast > 0.5:
        words = [word for word in words if not any(colour in word for colour in _COLOURFUL)]
    return words


def _clouds(sky: Sky) -> Sequence[str]:
    if sky.overcast > 0.5:
        return _OVERCAST
    deck = sky.layers[1]
    return next(words for limit, words in _COVERS if deck.threshold <= limit)


def _details(sky: Sky, frame: int) -> list[Sequence[str]]:
    _, speed = sky.layers[1].waves.velocity
    side, pace = "right" if speed > 0 else "left", "quickly" if abs(speed) > _FAST else "slowly"
    details: list[Sequence[str]] = [
        (f"moving {side}", f"drifting to the {side}", f"moving {pace} to the {side}")
    ]
    if sky.hills is not None:
        details.append(("over hills", "above dark hills", "hills below"))
    height = float(sun_height(sky, np.array([frame]))[0])
    if 0.05 < height < 0.7 and sky.overcast < 0.3:
        details.append(("with the sun", "the sun in view", "a bright sun"))
    return details


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]
