"""A seeded, procedural sky time-lapse: the training data of the built-in model.

Fractal clouds drift in parallax layers and slowly change shape under a sky whose colours follow the
sun; some clips are overcast, some show hills. Every frame is a pure function of (seed, clip index,
frame number, size); NumPy only. This module knows nothing of files, training or torch.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import ConfigError
from lvdm_tools.data.clouds import (
    CYCLES_PER_PIXEL,
    MAX_CYCLES,
    FieldOfWaves,
    Spectrum,
    Waves,
    draw_waves,
    field_of_waves,
    sample,
)

# Colours by the sine of the sun's height: zenith, horizon, lit cloud, shaded cloud (sRGB, 0..255).
_SUN_HEIGHTS = np.array([-0.20, -0.07, 0.03, 0.16, 0.45])
_COLOURS = np.array(
    [
        [[16, 22, 52], [44, 52, 92], [74, 80, 112], [30, 34, 60]],
        [[34, 48, 100], [176, 112, 118], [164, 120, 142], [60, 58, 92]],
        [[76, 98, 160], [250, 160, 92], [255, 190, 142], [126, 92, 114]],
        [[70, 126, 202], [246, 216, 176], [255, 238, 212], [164, 156, 170]],
        [[46, 110, 200], [172, 208, 238], [252, 252, 255], [170, 182, 202]],
    ],
    dtype=np.float64,
)
_HILL_SHADE = 0.22  # of the horizon's colour
_BLOCK = 32  # frames computed at a time: bounds memory, keeps arrays in cache


@dataclass(frozen=True)
class Layer:
    """One sheet of clouds: its waves, opacity and the field value above which there is cloud."""

    waves: Waves
    threshold: float
    softness: float  # width of the edge in field values
    opacity: float
    relief: float  # strength of the shading


@dataclass(frozen=True)
class Sky:
    """Everything that is fixed for one clip."""

    layers: tuple[Layer, ...]  # far to near
    day_phase: float  # radians
    day_rate: float  # radians per frame
    breathing: tuple[float, float, float]  # coverage: amplitude, radians per frame, phase
    sun_x: float  # frame heights from the left
    tint: NDArray[np.float64]  # (3,), gain per channel
    overcast: float  # 0..1
    horizon: float  # height of the sky in frame heights; hills stand below where there are any
    hills: NDArray[np.float64] | None  # (3, k): amplitude, cycles per height, phase


def draw_sky(seed: int, index: int) -> Sky:
    """Draw the sky of clip `index` of data set `seed`."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
    overcast = float(rng.uniform(0.55, 0.95)) if rng.random() < 0.2 else float(rng.uniform(0, 0.25))
    with_hills = rng.random() < 0.4
    direction = float(rng.choice([-1.0, 1.0]))
    speed = float(rng.uniform(0.007, 0.014)) * direction
    lift = float(rng.uniform(-0.25, 0.25)) * speed
    cover = float(rng.uniform(-0.5, 0.7)) - 0.7 * overcast
    # The day's phase is drawn so that about half of all clips start by day, the others near dusk.
    phase = float(rng.uniform(0, 2 * math.pi))
    return Sky(
        layers=_draw_layers(rng, speed, lift, cover),
        day_phase=phase,
        day_rate=float(rng.choice([-1.0, 1.0]) * 2 * math.pi / rng.uniform(4000, 12000)),
        breathing=(0.2, 2 * math.pi / float(rng.uniform(500, 1500)), float(rng.uniform(0, 6.28))),
        sun_x=float(rng.uniform(0.15, 0.85)),
        tint=rng.normal(1.0, 0.018, 3),
        overcast=overcast,
        horizon=float(rng.uniform(0.76, 0.92)) if with_hills else float(rng.uniform(0.95, 1.15)),
        hills=_draw_hills(rng) if with_hills else None,
    )


def _draw_layers(
    rng: np.random.Generator, speed: float, lift: float, cover: float
) -> tuple[Layer, ...]:
    """Thin high cloud, the main deck, and sometimes faster, lower cloud in front."""
    high = Spectrum(slope=2.2, outer=0.8, stretch=float(rng.uniform(2.0, 4.0)), evolution=0.006)
    deck = Spectrum(slope=2.4, outer=1.3, stretch=float(rng.uniform(1.2, 2.0)), evolution=0.008)
    low = Spectrum(slope=2.6, outer=0.9, stretch=float(rng.uniform(1.4, 2.4)), evolution=0.010)
    layers = [
        Layer(draw_waves(rng, high, (0.3 * lift, 0.45 * speed)), cover + 0.1, 2.0, 0.55, 0.1),
        Layer(draw_waves(rng, deck, (lift, speed)), cover + 0.15, 1.1, 0.95, 0.9),
    ]
    if rng.random() < 0.5:
        velocity = (1.3 * lift, 1.5 * speed)
        layers.append(Layer(draw_waves(rng, low, velocity), cover + 0.85, 1.3, 0.8, 0.7))
    return tuple(layers)


def _draw_hills(rng: np.random.Generator) -> NDArray[np.float64]:
    cycles = np.array([0.5, 1.1, 2.0, 3.4])
    amplitude = 0.045 * rng.rayleigh(1.0, 4) / cycles**0.9
    return np.stack([amplitude, cycles * rng.uniform(0.8, 1.2, 4), rng.uniform(0, 6.28, 4)])


def sky_clip(
    seed: int,
    frames: int,
    size: int | tuple[int, int],
    *,
    index: int = 0,
    start: int = 0,
    stride: int = 1,
) -> NDArray[np.uint8]:
    """Frames start, start + stride, … of clip `index` of data set `seed`: uint8 (f, h, w, 3).

    `size` is a side or (height, width) in pixels. Two calls agree on every frame they share,
    whatever their lengths; other sizes show the same sky, sharper or softer.
    Raises ConfigError: a size below 8 pixels, or a negative seed, index, start or length.
    """
    height, width = (size, size) if isinstance(size, int) else size
    numbers = {"seed": seed, "index": index, "frames": frames, "start": start, "stride": stride}
    _check(numbers, height, width)
    sky = draw_sky(seed, index)
    canvas = _Canvas.prepare(sky, height, width)
    out = np.empty((frames, height, width, 3), np.uint8)
    block = max(1, _BLOCK * 64 * 64 // (height * width))
    for first in range(0, frames, block):
        last = min(first + block, frames)
        times = start + stride * np.arange(first, last, dtype=np.int64)
        out[first:last] = _render(sky, canvas, times)
    return out


def _check(numbers: dict[str, int], height: int, width: int) -> None:
    if min(height, width) < 8:
        raise ConfigError(f"synthetic clip: {width}×{height} pixels; each side must be at least 8")
    for name, value in numbers.items():
        lowest = 1 if name == "stride" else 0
        if value < lowest:
            raise ConfigError(f"synthetic clip: {name} is {value}; expected {lowest} or more")


@dataclass(frozen=True)
class _Canvas:
    """What one frame size needs, computed once per call."""

    y: NDArray[np.float32]  # (h, 1), frame heights
    x: NDArray[np.float32]  # (1, w), frame heights
    margin: int  # rows above and below, for the shading's difference
    fields: tuple[FieldOfWaves, ...]
    hills: NDArray[np.float32] | None  # (h, w), 1 = hill

    @staticmethod
    def prepare(sky: Sky, height: int, width: int) -> "_Canvas":
        margin = max(1, round(0.03 * height))
        rows = (np.arange(-margin, height + margin) + 0.5) / height
        x = (np.arange(width) + 0.5) / height
        cycles = min(CYCLES_PER_PIXEL * height, MAX_CYCLES)
        # Rows crowd towards the horizon, as a flat cloud sheet does in perspective.
        fields = tuple(
            field_of_waves(layer.waves, rows + 0.25 * rows**2, x, cycles) for layer in sky.layers
        )
        y = rows[margin:-margin, None].astype(np.float32)
        hills = None if sky.hills is None else _hill_mask(sky.hills, sky.horizon, y, x)
        return _Canvas(y, x[None].astype(np.float32), margin, fields, hills)


def _hill_mask(
    hills: NDArray[np.float64], horizon: float, y: NDArray[np.float32], x: NDArray[np.float64]
) -> NDArray[np.float32]:
    amplitude, cycles, phase = hills[:, :, None]
    crest = horizon - (amplitude * np.sin(2 * math.pi * cycles * x + phase)).sum(0)
    return _smooth((y - crest[None]) / 0.045 + 0.5).astype(np.float32)


def _smooth(t: NDArray[np.floating]) -> NDArray[np.floating]:
    """Smoothstep: 0 below 0, 1 above 1, soft at both ends."""
    t = np.clip(t, 0, 1)
    eased: NDArray[np.floating] = t * t * (3 - 2 * t)
    return eased


def _colours(sky: Sky, sun: NDArray[np.float64]) -> NDArray[np.float32]:
    """Zenith, horizon, lit and shaded cloud for sun heights (f,): (4, 3, f, 1, 1) in 0..1."""
    out = np.empty((4, 3, sun.size))
    for kind in range(4):
        for channel in range(3):
            out[kind, channel] = np.interp(sun, _SUN_HEIGHTS, _COLOURS[:, kind, channel])
    out *= sky.tint[None, :, None] / 255
    grey = out.mean(axis=(0, 1)) * np.array([0.96, 0.99, 1.05])[:, None]  # (3, f)
    level = np.array([0.95, 1.05, 1.12, 0.72])[:, None, None]
    out += sky.overcast * 0.8 * (level * grey[None] - out)
    return out.astype(np.float32)[..., None, None]


def _glow(
    sky: Sky, canvas: _Canvas, times: NDArray[np.int64], sun: NDArray[np.float64]
) -> list[NDArray[np.float32]]:
    """Halo and disc of the sun, or of the moon at night, each (f, h, w) in 0..1."""
    # Sun and moon take turns at this height, where both are faded out.
    night = _smooth((-0.05 - sun) / 0.1)
    angle = sky.day_phase + sky.day_rate * times
    sun_y = min(sky.horizon, 0.95) - 1.1 * sun
    centre_y = np.where(night > 0, 0.28, sun_y)[:, None, None].astype(np.float32)
    centre_x = (sky.sun_x + 0.3 * np.cos(angle))[:, None, None].astype(np.float32)
    strength = np.where(night > 0, 0.35 * night, _smooth((sun + 0.05) / 0.08)) * (
        1 - 0.85 * sky.overcast
    )
    out = []
    for radius in (0.30, 0.055):
        fall_y = np.exp(-(((canvas.y[None] - centre_y) / radius) ** 2)) * strength[:, None, None]
        fall_x = np.exp(-(((canvas.x[None] - centre_x) / radius) ** 2))
        out.append((fall_y * fall_x).astype(np.float32))
    return out


def sun_height(sky: Sky, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sine of the sun's height at frames (f,), -0.14..0.86; below -0.05 it is night."""
    heights: NDArray[np.float64] = 0.36 + 0.5 * np.sin(sky.day_phase + sky.day_rate * times)
    return heights


def _render(sky: Sky, canvas: _Canvas, times: NDArray[np.int64]) -> NDArray[np.uint8]:
    sun = sun_height(sky, times)
    zenith, horizon, lit, shaded = _colours(sky, sun)
    halo, disc = _glow(sky, canvas, times, sun)
    ramp = np.clip(canvas.y / sky.horizon, 0, 1) ** 1.4
    warm = (0.6 * lit + 0.4 * horizon) * np.float32(1.1)
    image = zenith + (horizon - zenith) * ramp[None, None]  # (3, f, h, w)
    image = image + (warm - image) * (0.55 * halo)
    image += (1.05 - image) * disc
    amplitude, rate, phase = sky.breathing
    cover = (amplitude * np.sin(rate * times + phase)).astype(np.float32)[:, None, None]
    for layer, field in zip(sky.layers, canvas.fields, strict=True):
        values = sample(field, times)
        alpha, shade = _cloud(layer, values, cover, canvas)
        colour = shaded + (lit - shaded) * shade
        colour += (warm - colour) * (0.45 * halo)
        image += (colour - image) * alpha
    if canvas.hills is not None:
        image += (_HILL_SHADE * horizon - image) * canvas.hills
    np.clip(image, 0, 1, out=image)
    pixels: NDArray[np.uint8] = np.moveaxis(image * 255 + 0.5, 0, -1).astype(np.uint8)
    return pixels


def _cloud(
    layer: Layer, values: NDArray[np.float32], cover: NDArray[np.float32], canvas: _Canvas
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Opacity and brightness of a layer from its field with margins: two (f, h, w) in 0..1."""
    m = canvas.margin
    middle = values[:, m:-m]
    depth = (middle - layer.threshold + cover) / layer.softness
    # Light comes from above: where the field thickens downwards is a lit top, else a shaded base.
    slope = (values[:, 2 * m :] - values[:, : -2 * m]) * (
        0.06 / (2 * m * float(canvas.y[1, 0] - canvas.y[0, 0]))
    )
    shade = 0.75 + layer.relief * 0.35 * slope - 0.12 * np.clip(depth, 0, 3)
    return layer.opacity * _smooth(depth), np.clip(shade, 0, 1)
