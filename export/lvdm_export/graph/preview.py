"""The map from latents to colours that previews are drawn with, fitted to what the decoder shows.

No videos are needed: smooth coloured noise is encoded, and decoded again, so that latents are such
as the encoder gives and colours such as viewers will see. Least squares does the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lvdm_engines.manifest import ModelFacts
from lvdm_engines.preview_map import PreviewMap
from lvdm_export.graph.graphs import Autoencoder, DecoderGraph, EncoderGraph, with_few_latents

_WINDOWS = 16  # each of other colours, as many as a handful of unknown numbers needs
_SIDE = 4  # latents: larger windows gave no better map, and cost more
_STEEP = 1.5  # amplitudes fall with frequency to this power: clouds, rather than grain
_SEED = 1

Array = NDArray[np.float32]
Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class FittedPreview:
    """The map; how much of the colours' variance it explains, and by how many levels it is off."""

    map: PreviewMap
    r2: float
    levels: float


def fit_preview(autoencoder: Autoencoder, model: ModelFacts) -> FittedPreview:
    """Fit the map of a model's autoencoder, on frames of few latents."""
    encoder = EncoderGraph(autoencoder, model.latent)
    decoder = DecoderGraph(autoencoder, model.latent)
    with torch.no_grad():
        return fitted(
            with_few_latents(model, _SIDE),
            lambda frames: encoder(torch.from_numpy(frames)).numpy(),
            lambda latents: decoder(torch.from_numpy(latents))[0].numpy(),
        )


def fitted(
    model: ModelFacts,
    encode: Callable[[Pictures], NDArray[Any]],
    decode: Callable[[NDArray[Any]], NDArray[Any]],
) -> FittedPreview:
    """Fit colour = bias + latent × weights over windows of made-up pictures (1, f, h, w, 3)."""
    per, rows, columns = model.downsample
    h, w = model.latent.size
    random = np.random.Generator(np.random.Philox(_SEED))
    x, y = [], []
    for _ in range(_WINDOWS):
        latents = encode(_clouds(random, model)[None])  # (1, c, t, h, w)
        frames = decode(latents)[0].reshape(-1, per, h, rows, w, columns, 3)
        x.append(latents[0].reshape(model.latent.channels, -1).T)
        y.append(frames.mean(axis=(1, 3, 5)).reshape(-1, 3))
    return _least_squares(np.concatenate(x).astype(np.float64), np.concatenate(y))


def _least_squares(x: NDArray[np.float64], y: NDArray[np.float64]) -> FittedPreview:
    """Map latents (n, c) to colours (n, 3)."""
    design = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    numbers = np.linalg.lstsq(design, y)[0].round(3)
    error = np.clip(design @ numbers, 0, 255) - y
    spread = float(((y - y.mean(axis=0)) ** 2).sum())
    bias, *weights = [(float(r), float(g), float(b)) for r, g, b in numbers]
    return FittedPreview(
        PreviewMap(bias, tuple(weights)),
        r2=1 - float((error**2).sum()) / spread if spread else 0.0,
        levels=float(np.abs(error).mean()),
    )


def _clouds(random: np.random.Generator, model: ModelFacts) -> Pictures:
    """Draw smooth noise around a colour, in two more colours: uint8 (f, h, w, 3)."""
    size = (model.decode_window * model.frames_per_latent, *model.frame_size)
    noise = np.fft.rfftn(random.standard_normal((3, *size)), axes=(1, 2, 3))
    steps = np.meshgrid(
        np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), np.fft.rfftfreq(size[2]), indexing="ij"
    )
    frequency = np.sqrt(sum(step**2 for step in steps))
    frequency[0, 0, 0] = np.inf  # the mean is drawn below
    smooth = np.fft.irfftn(noise / frequency**_STEEP, size, axes=(1, 2, 3))
    smooth /= smooth.std() or 1.0
    mixed = np.einsum("ij,jfhw->fhwi", 0.6 + 0.3 * random.standard_normal((3, 3)), smooth)
    levels = random.uniform(20, 235, 3) + random.uniform(20, 60) * mixed
    pictures: Pictures = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return pictures
