"""From given frames to new ones: what the autoencoder loses must not be lost at once.

New frames are decoded, given ones are not, so a video that continues another would change where
they meet by all that encoding and decoding takes away. The last given frame shows what that is.
"""

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

ROUNDING_SEED = 0  # seed


def fade_out(length: int, count: int | None = None) -> NDArray[np.float32]:
    """Weights of `length` frames that fall from nearly 1 to nearly 0; the first `count` of them."""
    at = np.arange(1, min(length, length if count is None else count) + 1) / (length + 1)
    return (0.5 + 0.5 * np.cos(np.pi * at)).astype(np.float32)


class DetailFade:
    """Gives new frames (f, h, w, 3) back, less and less, what the last given frame lost."""

    def __init__(self, last_given: Frames, length: int, count: int | None = None) -> None:
        """Fade over `length` frames, of which `count` will come; `last_given` is (h, w, 3)."""
        self._given = last_given
        self._weights = fade_out(length, count)
        self._lost: NDArray[np.float32] | None = None
        # Rounding at the same half everywhere would drop all corrections by one level in the same
        # frame, a visible step; each pixel rounds at a fixed threshold of its own instead.
        rng = np.random.default_rng(ROUNDING_SEED)
        self._thresholds = rng.random((*last_given.shape[:2], 1), np.float32)

    def start(self, decoded: Frames) -> None:
        """Take the last given frame (h, w, 3) as the autoencoder returns it."""
        self._lost = self._given.astype(np.float32) - decoded

    def apply(self, frames: Frames) -> Frames:
        """Correct the next new frames; without a start they stay as they are."""
        weights, self._weights = self._weights[: len(frames)], self._weights[len(frames) :]
        if self._lost is None or not len(weights):
            return frames
        near = frames[: len(weights)] + weights[:, None, None, None] * self._lost
        rounded = np.clip(np.floor(near + self._thresholds), 0, 255).astype(np.uint8)
        return np.concatenate([rounded, frames[len(weights) :]])
