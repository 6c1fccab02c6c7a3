"""Frames to latents and back in the window that the autoencoder was trained on.

Neighbouring windows share latents; what both give is blended by a linear ramp, so that no seam
shows. Works on one video at a time: frames (f, h, w, 3) uint8, latents (c, t, h, w) float32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Latents = NDArray[np.float32]


def ramp(length: int) -> NDArray[np.float32]:
    """Weights of the later window over `length` shared items, strictly between 0 and 1."""
    return (np.arange(1, length + 1, dtype=np.float32) / np.float32(length + 1)).astype(np.float32)


def blend_frames(earlier: Frames, later: Frames) -> Frames:
    """Cross-fade two takes of the same frames (f, h, w, 3)."""
    weight = ramp(len(earlier))[:, None, None, None]
    mixed = (1 - weight) * earlier + weight * later
    rounded: Frames = np.floor(mixed + np.float32(0.5)).astype(np.uint8)
    return rounded


def blend_latents(earlier: Latents, later: Latents) -> Latents:
    """Cross-fade two takes of the same latents (c, t, h, w)."""
    weight = ramp(earlier.shape[1])[:, None, None]
    mixed: Latents = (1 - weight) * earlier + weight * later
    return mixed


class DecodeWindow(NamedTuple):
    """Latents (c, window, h, w) to decode together, and which of their frames are new.

    `known` latents are of the video, the rest repeats the last; of these `unseen` are in no window
    before, and the next window has the last `keep` of them again.
    """

    latents: Latents
    known: int
    unseen: int
    keep: int


@dataclass
class WindowedDecoder:
    """Decodes one video as its latents arrive; memory does not depend on its length.

    `decode` maps latents (c, window, h, w) to frames (window * per_latent, h, w, 3). Windows start
    every `window - overlap` latents; if the video does not end with a whole one, the last window
    is shifted back. A video shorter than a window is continued by its last latent, and cut.

    Windows can also be decoded elsewhere, in any order: `cut` them out, `join` what came of them.
    """

    decode: Callable[[Latents], Frames]
    window: int
    overlap: int
    per_latent: int
    _latents: list[Latents] = field(default_factory=list)  # (c, h, w) each, the latest window
    _unseen: int = 0  # latents at the end of _latents that no window has covered
    _begun: bool = False  # a window was cut out
    _tail: Frames | None = None  # frames of the last `overlap` latents, to be blended

    def push(self, latents: Latents) -> Iterator[Frames]:
        """Take the next latents (c, t, h, w) and yield the frames that are final."""
        for window in self.cut(latents):
            yield self.join(window, self.decode(window.latents))

    def finish(self) -> Iterator[Frames]:
        """Yield the frames that remain."""
        for window in self.cut_last():
            yield self.join(window, self.decode(window.latents))
        yield from self.rest()

    def cut(self, latents: Latents) -> Iterator[DecodeWindow]:
        """Take the next latents (c, t, h, w) and yield the windows that are full."""
        for latent in latents.swapaxes(0, 1):
            self._latents = [*self._latents, latent][-self.window :]
            self._unseen += 1
            if self._unseen + (self.overlap if self._begun else 0) == self.window:
                yield self._latest(self.overlap)

    def cut_last(self) -> Iterator[DecodeWindow]:
        """Yield the window of the latents that none has covered, if there are any."""
        if self._unseen:
            yield self._latest(0)
        self._latents, self._begun = [], False

    def join(self, window: DecodeWindow, decoded: Frames) -> Frames:
        """Return the frames that are final once a window is decoded; windows in their order."""
        known = window.known * self.per_latent
        shared = 0 if self._tail is None else len(self._tail)
        frames = decoded[known - shared - window.unseen * self.per_latent : known]
        if self._tail is not None and shared:
            frames = np.concatenate([blend_frames(self._tail, frames[:shared]), frames[shared:]])
        cut = len(frames) - window.keep * self.per_latent
        self._tail = frames[cut:]
        return frames[:cut]

    def rest(self) -> Iterator[Frames]:
        """Yield the frames that waited for another window, once all are joined."""
        if self._tail is not None:
            yield self._tail
        self._tail = None

    def _latest(self, keep: int) -> DecodeWindow:
        known, unseen = len(self._latents), self._unseen
        padded = self._latents + self._latents[-1:] * (self.window - known)
        self._unseen, self._begun = 0, True
        return DecodeWindow(np.stack(padded, axis=1), known, unseen, keep)


def window_starts(length: int, window: int, overlap: int) -> list[int]:
    """Return where windows start that cover `length` items; the last one is shifted back."""
    last = length - window
    return [*range(0, last, window - overlap), last]


def encode_windows(
    frames: Frames, encode: Callable[[Frames], Latents], window: int, overlap: int, per_latent: int
) -> Latents:
    """Encode frames (f, h, w, 3), f ≥ 1, in windows: latents (c, ceil(f / per_latent), h', w').

    `encode` maps frames (window * per_latent, h, w, 3) to latents (c, window, h', w'). What is
    missing to a whole latent or window is filled by repeating the first frame before the others,
    so that the last latents, from which a video is continued, hold nothing but given frames.
    """
    wanted = -(-len(frames) // per_latent)
    length = max(wanted, window)
    missing = length * per_latent - len(frames)
    frames = np.concatenate([np.repeat(frames[:1], missing, axis=0), frames])
    starts = window_starts(length, window, overlap)
    out = encode(frames[: window * per_latent])  # (c, window, h', w')
    for start in starts[1:]:
        part = encode(frames[start * per_latent : (start + window) * per_latent])
        shared = out.shape[1] - start
        mixed = blend_latents(out[:, start:], part[:, :shared])
        out = np.concatenate([out[:, :start], mixed, part[:, shared:]], axis=1)
    return out[:, length - wanted :]
