"""Numbers that say how close clips are to other clips; pixels in, floats out.

Clips are uint8 (n, f, h, w, 3) throughout; 255 is the range. Brightness is the Rec. 601 luma. This
module knows nothing of models, files or reports.
"""

import math

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import ConfigError

Clips = NDArray[np.uint8]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SSIM_SIDE = 11
_QUANTISATION = 1 / 12  # variance of rounding to whole levels: power below it is not seen


def psnr(clips: Clips, reference: Clips) -> float:
    """Peak signal-to-noise ratio in dB: 10·log10(255²/MSE) of each clip, averaged over clips.

    Infinite where a clip equals its reference.
    Raises ConfigError: not uint8 clips, or shapes differ.
    """
    _check_pair(clips, reference)
    gaps = (a.astype(np.float32) - b for a, b in zip(clips, reference, strict=True))
    errors = [float(np.square(gap).mean(dtype=np.float64)) for gap in gaps]
    return float(np.mean([10 * math.log10(255**2 / e) if e else math.inf for e in errors]))


def ssim(clips: Clips, reference: Clips) -> float:
    """Structural similarity of Wang et al. 2004, averaged over channels, frames and clips.

    11×11 Gaussian window with σ = 1.5, K1 = 0.01, K2 = 0.03, only windows that lie wholly inside
    the frame, each colour channel by itself, no downsampling.
    Raises ConfigError: not uint8 clips, shapes differ, or frames are smaller than the window.
    """
    _check_pair(clips, reference)
    if min(clips.shape[2:4]) < _SSIM_SIDE:
        raise ConfigError(
            f"SSIM needs frames of at least {_SSIM_SIDE}×{_SSIM_SIDE} pixels, got "
            f"{clips.shape[3]}×{clips.shape[2]}"
        )
    from skimage.metrics import structural_similarity  # which takes a second to import

    similarities = [
        structural_similarity(  # type: ignore[no-untyped-call]
            a,
            b,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
        for clip, other in zip(clips, reference, strict=True)
        for a, b in zip(clip, other, strict=True)
    ]
    return float(np.mean(similarities))


def colour_error(clips: Clips, reference: Clips) -> float:
    """Colour difference CIEDE2000 (ΔE₀₀) of each pixel, mean over all; sRGB under D65.

    About 1 is the least that an eye can tell side by side. PSNR hardly sees colours fade.
    Raises ConfigError: not uint8 clips, or shapes differ.
    """
    from skimage import color  # which takes a second to import

    _check_pair(clips, reference)
    errors = [
        color.deltaE_ciede2000(color.rgb2lab(a), color.rgb2lab(b)).mean()  # type: ignore[no-untyped-call]
        for clip, other in zip(clips, reference, strict=True)
        for a, b in zip(clip, other, strict=True)  # a clip would take 0.4 GiB at 256x256
    ]
    return float(np.mean(errors))


def mean_colour(clips: Clips) -> tuple[float, float, float]:
    """Mean red, green and blue over all pixels, 0..255."""
    _check(clips)
    red, green, blue = clips.mean(axis=(0, 1, 2, 3), dtype=np.float64)
    return float(red), float(green), float(blue)


def contrast(clips: Clips) -> float:
    """Measure how much brightness spreads: its standard deviation in a frame, mean, in levels."""
    _check(clips)
    return float(np.mean([luma(clip).std(axis=(1, 2), dtype=np.float64) for clip in clips]))


def frame_change(clips: Clips) -> float:
    """Mean absolute difference of neighbouring frames, in levels.

    Raises ConfigError: clips of a single frame.
    """
    _check(clips)
    if clips.shape[1] < 2:
        raise ConfigError("frame-to-frame change needs clips of two frames or more, got one")
    return float(np.mean([_mean_absolute(clip[1:], clip[:-1]) for clip in clips]))


def spectrum_slope(clips: Clips) -> float:
    """Exponent s of the spatial power spectrum, power ∝ frequency^s; sharper pictures lie nearer 0.

    Brightness, Hann window, power averaged over rings of whole cycles per frame; a straight line
    through (log frequency, log power), from 2 cycles per frame to a quarter of a cycle per pixel,
    each ring at its mean over all frames of log power. Power is floored where rounding to 8 bits
    hides it.
    Raises ConfigError: frames below 16 pixels.
    """
    _check(clips)
    side = min(clips.shape[2:4])
    if side < 16:
        raise ConfigError(f"the spectrum needs frames of at least 16 pixels a side, got {side}")
    frequency = np.arange(2, side // 4 + 1)
    log_power = np.mean([_ring_power(clip, frequency) for clip in clips], axis=0)
    slope, _ = np.polyfit(np.log(frequency), log_power, 1)
    return float(slope)


def _ring_power(clip: NDArray[np.uint8], frequency: NDArray[np.int_]) -> NDArray[np.float64]:
    """Log power per ring, averaged over the frames of a clip: (k,)."""
    bright = luma(clip).astype(np.float64)
    _, h, w = bright.shape
    window = np.outer(np.hanning(h), np.hanning(w))
    bright = bright - (bright * window).sum((1, 2), keepdims=True) / window.sum()
    power = np.abs(np.fft.rfft2(bright * window)) ** 2 / (window**2).sum()
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    ring = np.rint(np.hypot(fy, fx) * min(h, w)).astype(int)
    rings = np.stack([power[:, ring == k].mean(1) for k in frequency])  # (k, f)
    mean: NDArray[np.float64] = np.log(np.maximum(rings, _QUANTISATION)).mean(1)
    return mean


def continuity(last_given: Clips, first_new: Clips, real: Clips) -> float:
    """Jump where new frames begin, as a multiple of the change between real neighbours.

    `last_given` and `first_new` are frames (n, h, w, 3) that follow each other in generated videos,
    `real` clips at the same frame stride. 1 = as smooth as real clips.
    Raises ConfigError: shapes differ, or the real clips do not move at all.
    """
    if last_given.shape != first_new.shape or last_given.ndim != 4:
        raise ConfigError(
            f"continuity: got frames {last_given.shape} and {first_new.shape}, expected twice "
            "(n, h, w, 3)"
        )
    usual = frame_change(real)
    if not usual:
        raise ConfigError("continuity: the real clips stand still, so there is nothing to compare")
    return _mean_absolute(first_new, last_given) / usual


def relative_difference(value: float, reference: float) -> float:
    """|value − reference| as a share of |reference|; infinite against 0, unless both are 0."""
    if reference == 0:
        return 0.0 if value == 0 else math.inf
    return abs(value - reference) / abs(reference)


def luma(frames: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how bright pixels (…, 3) are, in the unit they are given in."""
    grey: NDArray[np.float32] = frames.astype(np.float32) @ _LUMA
    return grey


def _mean_absolute(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())


def _check(clips: Clips) -> None:
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3 or 0 in clips.shape:
        raise ConfigError(f"clips: got {clips.dtype} {clips.shape}, expected uint8 (n, f, h, w, 3)")


def _check_pair(clips: Clips, reference: Clips) -> None:
    _check(clips)
    _check(reference)
    if clips.shape != reference.shape:
        raise ConfigError(
            f"clips {clips.shape} and reference {reference.shape} must have one shape"
        )
