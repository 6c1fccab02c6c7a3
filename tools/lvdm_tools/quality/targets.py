"""What a model's quality report says, measured on arrays of clips, and the targets it is held to.

Clips are uint8 (n, f, h, w, 3). This module knows nothing of bundles, pipelines or files, so that
training can call it on what it has just sampled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import ConfigError
from lvdm_tools.quality import metrics
from lvdm_tools.quality.distances import frechet_distance

Clips = NDArray[np.uint8]

LEAST_PSNR, LEAST_SSIM = 30.0, 0.88
MOST_DIFFERENCE = 0.20  # of a statistic of generated clips from that of real ones
MOST_FRECHET_RATIO = 3.0
MOST_CONTINUITY = 1.5
MOST_SEAM = 1.15


class Reconstruction(msgspec.Struct, frozen=True):
    """How well the autoencoder returns unseen clips: PSNR in dB, SSIM, mean ΔE₀₀."""

    psnr: float
    ssim: float
    colour_error: float
    clips: int

    @property
    def reached(self) -> bool:
        """Whether both targets are met."""
        return self.psnr >= LEAST_PSNR and self.ssim >= LEAST_SSIM


class Statistic(msgspec.Struct, frozen=True):
    """A number of generated clips beside that of real ones; the difference is relative."""

    generated: tuple[float, ...]
    real: tuple[float, ...]
    difference: float

    @property
    def reached(self) -> bool:
        """Whether the difference is small enough."""
        return self.difference <= MOST_DIFFERENCE


class Distance(msgspec.Struct, frozen=True):
    """Fréchet distance to real clips, and the one between sets of real clips of the same size."""

    distance: float
    floor: float
    ratio: float

    @property
    def reached(self) -> bool:
        """Whether the distance is near enough to the floor."""
        return self.ratio <= MOST_FRECHET_RATIO


class Generation(msgspec.Struct, frozen=True):
    """How generated clips compare with real ones; `frechet` is None for too few clips."""

    mean_colour: Statistic
    contrast: Statistic
    spectrum_slope: Statistic
    frame_change: Statistic
    frechet: Distance | None
    clips: int

    @property
    def reached(self) -> bool:
        """Whether every statistic meets its target; a missing distance does not."""
        statistics = (self.mean_colour, self.contrast, self.spectrum_slope, self.frame_change)
        return all(s.reached for s in statistics) and bool(self.frechet and self.frechet.reached)


class Continuation(msgspec.Struct, frozen=True):
    """Jump from the last given to the first new frame, in changes between real neighbours.

    `ratio` is what a viewer sees: pixels that were given, then the pipeline's frames. It says
    little of the model, because the fade makes up for what the autoencoder loses; `raw` is
    the same without the fade. `decoded` is the denoiser's share: both frames decoded in one go,
    so that the autoencoder loses the same of both. `real` is `decoded` of real clips where one
    latent ends and the next begins: what a perfect denoiser would reach.
    """

    ratio: float
    raw: float
    decoded: float
    real: float
    clips: int

    @property
    def reached(self) -> bool:
        """Whether the jump is small enough, for the viewer and in what the denoiser made."""
        return max(self.ratio, self.decoded) <= MOST_CONTINUITY


class LongVideos(msgspec.Struct, frozen=True):
    """Change from frame to frame in long videos where something begins, over that elsewhere.

    `windows`: where windows of the decoder begin or end; `keyframes`: where a keyframe begins. None
    where nothing of the kind lies inside the videos.
    """

    windows: float | None
    keyframes: float | None
    videos: int
    frames: int

    @property
    def reached(self) -> bool:
        """Whether no seam shows between decode windows."""
        return self.windows is None or self.windows <= MOST_SEAM


@dataclass(frozen=True)
class Seams:
    """Pairs of neighbouring frames, each (n, h, w, 3), where new frames begin.

    `seen`: the last frame of each condition and the first one that the pipeline gives; `raw`: the
    same without the fade; `decoded`: both out of one decoding; `real`: neighbours across the
    border of two latents of reconstructed clips.
    """

    seen: tuple[Clips, Clips]
    raw: tuple[Clips, Clips]
    decoded: tuple[Clips, Clips]
    real: tuple[Clips, Clips]


def reconstruction(decoded: Clips, real: Clips) -> Reconstruction:
    """Compare clips with what the autoencoder made of them.

    Raises ConfigError: shapes differ, or frames are too small for SSIM.
    """
    return Reconstruction(
        psnr=metrics.psnr(decoded, real),
        ssim=metrics.ssim(decoded, real),
        colour_error=metrics.colour_error(decoded, real),
        clips=len(real),
    )


def generation(generated: Clips, real: Sequence[Clips]) -> Generation:
    """Compare generated clips with two or more sets of unseen real clips of the same shape.

    Every set counts: statistics are over all of them, the distance is the mean of the distances to
    each, and the floor the mean over their pairs.
    Raises ConfigError: fewer than two real sets, or shapes that do not fit.
    """
    if len(real) < 2 or any(r.shape[1:] != generated.shape[1:] for r in real):
        raise ConfigError(
            f"generated clips {generated.shape} need two or more real sets of that shape, got "
            f"{[r.shape for r in real]}"
        )
    everything = np.concatenate(list(real))
    return Generation(
        mean_colour=_statistic(metrics.mean_colour(generated), metrics.mean_colour(everything)),
        contrast=_statistic(metrics.contrast(generated), metrics.contrast(everything)),
        spectrum_slope=_statistic(
            metrics.spectrum_slope(generated), metrics.spectrum_slope(everything)
        ),
        frame_change=_statistic(metrics.frame_change(generated), metrics.frame_change(everything)),
        frechet=_distance(generated, real),
        clips=len(generated),
    )


def continuation(seams: Seams, real: Clips) -> Continuation:
    """Measure how smoothly new frames follow given ones, against unseen clips (n, f, h, w, 3).

    Raises ConfigError: shapes that do not fit.
    """
    return Continuation(
        ratio=metrics.continuity(*seams.seen, real),
        raw=metrics.continuity(*seams.raw, real),
        decoded=metrics.continuity(*seams.decoded, real),
        real=metrics.continuity(*seams.real, real),
        clips=len(seams.seen[0]),
    )


def long_videos(
    changes: NDArray[np.float64], windows: Sequence[int], keyframes: Sequence[int]
) -> LongVideos:
    """Compare the changes (n, f - 1) from each frame of long videos to the next by their places.

    `windows` and `keyframes` are frames, above 0, that begin something.
    """
    return LongVideos(
        windows=_beginnings(changes, windows),
        keyframes=_beginnings(changes, keyframes),
        videos=len(changes),
        frames=changes.shape[1] + 1,
    )


def _beginnings(changes: NDArray[np.float64], places: Sequence[int]) -> float | None:
    begins = np.zeros(changes.shape[1], bool)
    begins[np.asarray(places, int) - 1] = True  # change i leads to frame i + 1
    if not begins.any() or begins.all():
        return None
    there, elsewhere = changes[:, begins].mean(), changes[:, ~begins].mean()
    if not elsewhere:
        return math.inf if there else 1.0
    return float(there / elsewhere)


def _statistic(generated: float | tuple[float, ...], real: float | tuple[float, ...]) -> Statistic:
    """Put two numbers, or two of each channel, side by side; the worst channel counts."""
    ours = generated if isinstance(generated, tuple) else (generated,)
    theirs = real if isinstance(real, tuple) else (real,)
    worst = max(map(metrics.relative_difference, ours, theirs))
    return Statistic(ours, theirs, worst)


def _distance(generated: Clips, real: Sequence[Clips]) -> Distance | None:
    from lvdm_tools.quality.random_features import LEAST_CLIPS, features  # of what needs torch

    if min(map(len, [generated, *real])) < LEAST_CLIPS:
        return None
    ours, theirs = features(generated), [features(r) for r in real]
    distance = float(np.mean([frechet_distance(ours, x) for x in theirs]))
    floor = float(np.mean([frechet_distance(a, b) for a, b in combinations(theirs, 2)]))
    return Distance(distance, floor, distance / floor if floor else math.inf)
