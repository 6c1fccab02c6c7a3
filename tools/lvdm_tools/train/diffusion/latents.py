"""The data set as latents: encoded once, kept on disk, measured, cut into clips.

Latents on disk are posterior means as the autoencoder gives them; `Latents` holds them normalised,
z = scale·(mean + shift) with shift = −mean and scale = 1/std over the whole set (LVDM §3).
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvdm_engines.errors import (
    CheckpointError,
    NumericsError,
    TrainingError,
    cause,
)
from lvdm_export.nets.autoencoder3d import Autoencoder3d
from lvdm_rt.background import Stop, prefetch
from lvdm_tools.data.clip import CaptionedSource
from lvdm_tools.train import state
from lvdm_tools.train.config import EncodedData
from lvdm_tools.train.pixels import to_tensor

FOLDER = "latents"  # in the folder of a run
_AHEAD = 3  # clips that are read while others are encoded
_PART = 64  # sequences per file: an interrupted encoding loses at most one part

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Latents:
    """Normalised sequences (n, c, t, h, w), the numbers that normalised them, what they show."""

    sequences: NDArray[np.float32]
    scale: float
    shift: float
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class Encoding:
    """What is encoded, with what, and where the result is kept.

    `fingerprint` names everything the latents depend on; files of another one are not used.
    Parts that an earlier run left in `earlier` are taken over instead of being made again.
    `captioned` keeps what each sequence shows beside it.
    """

    source: CaptionedSource
    data: EncodedData
    autoencoder: Autoencoder3d
    folder: Path
    fingerprint: str
    report: "state.Report"
    stop: threading.Event
    earlier: Path | None = None
    captioned: bool = False


def encode(encoding: Encoding) -> None:
    """Encode every sequence that is not on disk yet, here or in an earlier run.

    Raises TrainingError: the disk is full, the folder cannot be written, or data cannot be read;
    NumericsError: the autoencoder gives NaN or infinity; KeyboardInterrupt: the run was asked to
    stop, what is finished is kept.
    """
    count = encoding.data.sequences
    try:
        encoding.folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise TrainingError(f"cannot create {encoding.folder}: {cause(err)}") from err
    for first in range(0, count, _PART):
        path, last = _part(encoding.folder, first), min(first + _PART, count)
        if _is_current(path, encoding.fingerprint):
            continue
        if encoding.stop.is_set():
            raise KeyboardInterrupt
        part = _earlier_part(encoding, first)
        phase = "encode" if part is None else "take over"
        means, captions = _encode_part(encoding, first, last) if part is None else part
        header = {"fingerprint": encoding.fingerprint}
        told = {"captions": captions} if encoding.captioned else {}
        state.save(path, {"means": means}, header | told)
        encoding.report({"phase": phase, "step": last, "of": count})


def read(encoding: Encoding, known: tuple[float, float] | None = None) -> Latents:
    """Read what `encode` wrote, and normalise it by its own numbers or a `known` scale and shift.

    Raises CheckpointError: a file is damaged; NumericsError: all latents are equal, so they cannot
    be normalised.
    """
    starts = range(0, encoding.data.sequences, _PART)
    parts = [_read_part(encoding, _part(encoding.folder, first), first) for first in starts]
    means = np.concatenate([part.numpy() for part, _ in parts])
    centre, spread = float(means.mean(dtype=np.float64)), float(means.std(dtype=np.float64))
    if not spread > 0:
        raise NumericsError(
            f"all latents in {encoding.folder} equal {centre:.4g}: train the autoencoder for longer"
        )
    scale, shift = (1.0 / spread, -centre) if known is None else known
    means += np.float32(shift)
    means *= np.float32(scale)
    captions = [caption for _, told in parts for caption in told]
    return Latents(means, scale, shift, captions)


def encode_sequence(
    frames: NDArray[np.uint8], window: int, per_latent: int, mean: Callable[[Tensor], Tensor]
) -> Tensor:
    """Encode (f, h, w, 3) in windows of frames, each seen with one latent of context on both sides.

    `mean` maps (1, 3, f, h, w) to posterior means (1, c, t, h', w'). Context keeps the inner
    latents free of the padding at a window's ends. Returns (c, t, h', w').
    """
    parts = []
    for start in range(0, len(frames), window):
        low, high = max(start - per_latent, 0), start + window + per_latent
        seen = mean(to_tensor(frames[None, low:high]))[0]
        skip = (start - low) // per_latent
        parts.append(seen[:, skip : skip + window // per_latent])
    return torch.cat(parts, dim=1)


def _earlier_part(encoding: Encoding, first: int) -> tuple[Tensor, list[str]] | None:
    if encoding.earlier is None:
        return None
    path = _part(encoding.earlier, first)
    try:
        current = _is_current(path, encoding.fingerprint)
        return _read_part(encoding, path, first) if current else None
    except CheckpointError as err:
        _logger.warning("encoding again: %s", err)
        return None


def _read_part(encoding: Encoding, path: Path, first: int) -> tuple[Tensor, list[str]]:
    """Read a part, of which the shape is known: means and captions."""
    data, config = encoding.data, encoding.autoencoder.config
    count = min(_PART, data.sequences - first)
    sizes = zip((data.frames, *data.size), config.downsample, strict=True)
    shape = (count, config.embed_dim, *(size // factor for size, factor in sizes))
    tensors, header = state.load(path)
    with state.reading(path, "delete it, then --resume"):
        means = state.tensor(tensors, "means", shape, torch.float32)
        captions = msgspec.convert(header["captions"] if encoding.captioned else [], list[str])
        if encoding.captioned and len(captions) != count:
            raise ValueError(f"it has {len(captions)} captions for {count} sequences")
        return means, captions


def _encode_part(encoding: Encoding, first: int, last: int) -> tuple[Tensor, list[str]]:
    network, data = encoding.autoencoder, encoding.data
    device = next(network.parameters()).device
    per_latent = network.config.downsample[0]

    def mean(frames: Tensor) -> Tensor:
        return network.encode(frames.to(device)).chunk(2, dim=1)[0].cpu()

    sequences, captions = [], []
    drawn = (encoding.source.captioned(number) for number in range(first, last))
    with torch.inference_mode(), closing(prefetch(drawn, _AHEAD, Stop())) as clips:
        for clip, caption in clips:
            captions.append(caption)
            if encoding.stop.is_set():
                raise KeyboardInterrupt
            sequences.append(encode_sequence(clip, data.window, per_latent, mean))
        means = torch.stack(sequences)
    if not bool(torch.isfinite(means).all()):
        raise NumericsError(
            f"the autoencoder gives NaN or infinity for sequences {first} to {last - 1}"
        )
    return means.clone(), captions


def _part(folder: Path, first: int) -> Path:
    return folder / f"part-{first // _PART:05d}.safetensors"


def _is_current(path: Path, fingerprint: str) -> bool:
    if not path.exists():
        return False
    try:
        stored = state.read_header(path).get("fingerprint")
    except CheckpointError as err:
        _logger.warning("encoding again: %s", err)
        return False
    return bool(stored == fingerprint)
