"""Whether skies show what their captions name: colours, brightness, drift, horizon; no network.

Every attribute is one measure of a clip's pixels. Where the line lies between clips that show it
and others is found on real clips with captions. Clips are uint8 (n, f, h, w, 3). Knows the words
of `synth` only; nothing of bundles or pipelines.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from lvdm_tools.quality.metrics import luma

Clips = NDArray[np.uint8]
Measures = NDArray[np.float64]

_SKY = 0.7  # of a frame's height, from the top: no hills
_DARK = 0.05  # added where something is divided by brightness
_APART = 4  # frames between those whose shift is measured


class Followed(msgspec.Struct, frozen=True):
    """Shares of named attributes that generated clips show, and real ones with the same captions.

    `attributes` tells both, and how often it was named, of each.
    """

    shown: float
    real: float
    attributes: dict[str, tuple[float, float, int]]
    clips: int


@dataclass(frozen=True)
class _Attribute:
    """What some words name; clips that are told another one of its `group` show the opposite.

    Where a group has one attribute only, those do that are told nothing of it.
    """

    group: str
    words: re.Pattern[str]
    measure: Callable[[Clips], Measures]

    def named(self, captions: Sequence[str]) -> NDArray[np.bool_]:
        return np.array([bool(self.words.search(caption)) for caption in captions])


def _frames(clips: Clips) -> NDArray[np.float32]:
    """Return every fourth frame in 0..1."""
    return clips[:, ::4].astype(np.float32) / np.float32(255)


def _sky(clips: Clips) -> NDArray[np.float32]:
    """Return the sky of every fourth frame in 0..1."""
    return _frames(clips[:, :, : round(_SKY * clips.shape[2])])


def _means(values: NDArray[np.float32]) -> Measures:
    means: Measures = values.reshape(len(values), -1).mean(1, dtype=np.float64)
    return means


def _high(values: NDArray[np.float32]) -> Measures:
    """Return what a tenth of each clip's values lies above."""
    high: Measures = np.quantile(values.reshape(len(values), -1), 0.9, axis=1)
    return high


def _brightness(clips: Clips) -> Measures:
    return _means(luma(_sky(clips)))


def _warmth(clips: Clips) -> Measures:
    """Red over blue where the sky is warmest."""
    sky = _sky(clips)
    return _high((sky[..., 0] - sky[..., 2]) / (sky.sum(-1) + _DARK))


def _colour(clips: Clips) -> Measures:
    """Saturation where it is highest: overcast skies have none."""
    sky = _sky(clips)
    most = sky.max(-1)
    return _high((most - sky.min(-1)) / (most + _DARK))


def _brightest(clips: Clips) -> tuple[Measures, Measures]:
    """Return the brightness of the brightest patch, a sixteenth of the height, and the median."""
    frames = luma(_frames(clips)).mean(1)  # (n, h, w)
    n, height, width = frames.shape
    side = max(1, height // 16)
    rows, columns = height // side, width // side
    cut = frames[:, : rows * side, : columns * side]
    patches = cut.reshape(n, rows, side, columns, side).mean((2, 4), dtype=np.float64)
    return patches.max((1, 2)), np.median(patches, axis=(1, 2))


def _sun(clips: Clips) -> Measures:
    return _brightest(clips)[0]


def _uncovered(clips: Clips) -> Measures:
    """How far sun, moon or their glow stand out: clouds hide them."""
    brightest, median = _brightest(clips)
    return (brightest - median) / (median + _DARK)


def _horizon(clips: Clips) -> Measures:
    """How much darker the lowest rows are than the sky above them."""
    frames = luma(_frames(clips))
    height = frames.shape[2]
    low = _means(frames[:, :, -max(1, height // 16) :])
    return -low / (_means(frames[:, :, round(0.4 * height) : round(_SKY * height)]) + _DARK)


def _drift(clips: Clips) -> Measures:
    """How much better the sky fits itself shifted to the right than to the left, over time."""
    return np.array([_shifted(clip[:, : round(_SKY * clip.shape[1])]) for clip in clips])


def _shifted(sky: NDArray[np.uint8]) -> float:
    """Correlate frames `_APART` apart, with large structures damped, for shifts up to h/8.

    Phase correlation (Kuglin and Hines 1975), but for the square root of the spectrum's size.
    """
    seen = luma(sky) / np.float32(255)
    frames, height, width = seen.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    waves = np.fft.rfft2((seen - seen.mean((1, 2), keepdims=True)) * window)
    apart = min(_APART, frames - 1)
    before, after = waves[:-apart], waves[apart:]
    size = np.sqrt(np.abs(before) * np.abs(after)) + 1e-9
    fit = np.fft.irfft2(np.conj(before) * after / size, s=(height, width)).sum(0)
    fit = fit[[-2, -1, 0, 1, 2]].sum(0)  # clouds rise and sink a little
    most = max(1, height // 8)
    right, left = fit[1 : most + 1], fit[-most:]
    return float((right.max() - left.max()) / (np.abs(fit).max() + 1e-9))


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b")


_DAY = r"(?:morning|afternoon)(?! light)|day|noon|midday|daylight|deep blue"
_ATTRIBUTES = {
    "night": _Attribute("time", _words("night|moonlight"), _brightness),
    "low sun": _Attribute("time", _words("dawn|dusk|twilight|sunrise|sunset|orange"), _warmth),
    "day": _Attribute("time", _words(_DAY), _brightness),
    "overcast": _Attribute("sky", _words("overcast|grey"), _colour),
    "heavy clouds": _Attribute("cover", _words("heavy|thick|(?<!partly )cloudy"), _uncovered),
    "few clouds": _Attribute("cover", _words("clear|few|scattered"), _uncovered),
    "to the left": _Attribute("drift", _words("left"), _drift),
    "to the right": _Attribute("drift", _words("right"), _drift),
    "hills": _Attribute("hills", _words("hills"), _horizon),
    "sun": _Attribute("sun", _words("sun"), _sun),
}


def followed(
    generated: Clips, real: Clips, captions: Sequence[str], known: tuple[Clips, Sequence[str]]
) -> Followed | None:
    """Compare clips with the captions they were told, beside the `real` clips of these captions.

    What an attribute looks like is taken from other real clips and their captions, `known`; one
    that is not in both kinds of captions is left out. None where none is left.
    """
    theirs, seen = _measured(known[0]), known[1]
    sets = _measured(generated), _measured(real)
    attributes: dict[str, tuple[float, float, int]] = {}
    for name, attribute in _ATTRIBUTES.items():
        told, has, lacks = attribute.named(captions), attribute.named(seen), _others(name, seen)
        if not (told.any() and has.any() and lacks.any()):
            continue
        values = theirs[attribute.measure]
        line, side = _line(values[has], values[lacks])
        ours, real_ones = (
            float((side * measured[attribute.measure][told] > side * line).mean())
            for measured in sets
        )
        attributes[name] = ours, real_ones, int(told.sum())
    if not attributes:
        return None
    shares = np.array(list(attributes.values()))  # (attributes, 3)
    shown, shown_really = np.average(shares[:, :2], axis=0, weights=shares[:, 2])
    return Followed(
        shown=float(shown),
        real=float(shown_really),
        attributes=attributes,
        clips=len(generated),
    )


def _measured(clips: Clips) -> dict[Callable[[Clips], Measures], Measures]:
    measures = dict.fromkeys(attribute.measure for attribute in _ATTRIBUTES.values())
    return {measure: measure(clips) for measure in measures}


def _others(name: str, captions: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which captions speak of the opposite of an attribute."""
    mine = _ATTRIBUTES[name]
    others = [a for a in _ATTRIBUTES.values() if a.group == mine.group and a is not mine]
    if not others:
        return ~mine.named(captions)
    told: NDArray[np.bool_] = np.logical_or.reduce([other.named(captions) for other in others])
    return told & ~mine.named(captions)


def _line(has: Measures, lacks: Measures) -> tuple[float, float]:
    """Find the line and the side of it on which the mean share of both that is right is largest."""
    values = np.unique(np.concatenate([has, lacks]))
    lines = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
    above = (has[:, None] > lines).mean(0) + (lacks[:, None] < lines).mean(0)
    best = int(np.abs(above - 1).argmax())
    return float(lines[best]), 1.0 if above[best] >= 1 else -1.0
