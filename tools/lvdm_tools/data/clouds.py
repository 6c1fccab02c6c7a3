"""Drifting, slowly evolving noise fields as a closed function of time.

A field is a sum of plane waves with a power-law spectrum. Every wave drifts with its layer and
turns its phase at its own slow rate, so any frame is computed directly, at any resolution, and
clips that overlap agree. This module knows nothing of colours or of skies.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Periods of the field in frame heights: wider than the frame, so that no cloud is seen twice.
PERIOD_X = 3.0
PERIOD_Y = 2.0
# Waves are drawn up to this many cycles per frame height at every size, then cut to what the size
# can show, so that a clip at 256×256 is the clip at 64×64 with finer detail.
MAX_CYCLES = 32.0
# Finest wave shown, in cycles per pixel: clouds stay smooth at the scale of a pixel.
CYCLES_PER_PIXEL = 0.15


@dataclass(frozen=True)
class Waves:
    """One field's plane waves; wave numbers are in cycles per frame height."""

    ky: NDArray[np.float32]  # (m,)
    kx: NDArray[np.float32]  # (n,), non-negative
    amplitude: NDArray[np.float32]  # (m, n)
    phase: NDArray[np.float32]  # (m, n), radians
    turning: NDArray[np.float32]  # (m, n), radians per frame
    velocity: tuple[float, float]  # (y, x), frame heights per frame


@dataclass(frozen=True)
class Spectrum:
    """Shape of a field's spectrum.

    `slope` is the exponent of amplitude over wave number, `outer` the scale in cycles per height
    where the power law starts, `stretch` how much longer than high the structures are, `evolution`
    the turning rate in radians per frame of a wave of one cycle per height.
    """

    slope: float
    outer: float
    stretch: float
    evolution: float


def draw_waves(
    rng: np.random.Generator, spectrum: Spectrum, velocity: tuple[float, float]
) -> Waves:
    """Draw the waves of a field whose values have mean 0 and variance 1."""
    reach_y, reach_x = round(MAX_CYCLES * PERIOD_Y), round(MAX_CYCLES * PERIOD_X)
    ky = (np.arange(-reach_y, reach_y + 1) / PERIOD_Y).astype(np.float32)
    kx = (np.arange(reach_x + 1) / PERIOD_X).astype(np.float32)
    shape = (ky.size, kx.size)
    phase = rng.random(shape, dtype=np.float32) * np.float32(2 * math.pi)
    jitter = rng.standard_normal(shape, dtype=np.float32)
    radius = np.hypot(ky[:, None], kx[None] * spectrum.stretch)
    amplitude = (radius**2 + spectrum.outer**2) ** (-spectrum.slope / 2)
    amplitude *= rng.rayleigh(1.0, shape)
    amplitude[reach_y, 0] = 0.0  # no constant
    amplitude[:, 0] *= 0.5  # waves with kx = 0 appear twice, as (ky) and (−ky)
    amplitude /= math.sqrt(float((amplitude**2).sum()) / 2)
    turning = spectrum.evolution * jitter * np.maximum(radius, 0.3) ** np.float32(2 / 3)
    return Waves(ky, kx, amplitude.astype(np.float32), phase, turning.astype(np.float32), velocity)


@dataclass(frozen=True)
class FieldOfWaves:
    """A field's waves, cut to what one grid can show, with the grid's trigonometric tables."""

    amplitude: NDArray[np.complex64]  # (m, n), phases included
    rate: NDArray[np.float64]  # (m, n), radians per frame
    to_x: NDArray[np.complex64]  # (n, w)
    to_y: NDArray[np.float32]  # (h, 2m): cosines, then negative sines


def field_of_waves(
    waves: Waves, y: NDArray[np.float64], x: NDArray[np.float64], cycles: float
) -> FieldOfWaves:
    """Prepare sampling on the grid y (h,) × x (w,), in frame heights, up to `cycles` per height."""
    rows = np.abs(waves.ky) <= cycles
    cols = waves.kx <= cycles
    ky = waves.ky[rows].astype(np.float64)
    kx = waves.kx[cols].astype(np.float64)
    pick = np.ix_(rows, cols)
    roll_off = np.clip(2 - 2 * np.hypot(ky[:, None], kx[None]) / cycles, 0, 1)
    amplitude = waves.amplitude[pick] * roll_off * np.exp(1j * waves.phase[pick])
    vy, vx = waves.velocity
    rate = waves.turning[pick] - 2 * math.pi * (ky[:, None] * vy + kx[None] * vx)
    angle_y = 2 * math.pi * y[:, None] * ky[None]  # (h, m)
    to_y = np.concatenate([np.cos(angle_y), -np.sin(angle_y)], axis=1)
    to_x = np.exp(2j * math.pi * kx[:, None] * x[None])
    return FieldOfWaves(
        amplitude.astype(np.complex64), rate, to_x.astype(np.complex64), to_y.astype(np.float32)
    )


def sample(field: FieldOfWaves, times: NDArray[np.int64]) -> NDArray[np.float32]:
    """Values of the field at the given frame numbers: (f,) → (f, h, w), about −3..3."""
    # float64 up to the reduced angle: late frames of a long clip must be as exact as the first ones
    angle = np.remainder(times[:, None, None] * field.rate[None], 2 * math.pi).astype(np.float32)
    spectrum = np.empty(angle.shape, np.complex64)
    np.cos(angle, out=spectrum.real)
    np.sin(angle, out=spectrum.imag)
    spectrum *= field.amplitude
    columns = np.matmul(spectrum, field.to_x)  # (f, m, w)
    stacked = np.concatenate([columns.real, columns.imag], axis=1)  # (f, 2m, w)
    values: NDArray[np.float32] = np.matmul(field.to_y, stacked)
    return values
