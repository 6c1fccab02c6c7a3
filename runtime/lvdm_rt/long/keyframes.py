"""Latents of one video on their way: what later clips still need, and what is ready to decode."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.long.plan import Clip, ClipPlan, ceil_div

Array = NDArray[np.float32]


class VideoLatents:
    """The keyframes and infilled gaps of one video; forgets what nothing needs any more.

    `condition` holds the last latents of the condition video (c, g, h, w), None without one.
    """

    def __init__(self, plan: ClipPlan, condition: Array | None) -> None:
        self._plan = plan
        self._keys: dict[int, Array] = {}  # keyframe → (c, h, w)
        self._gaps: dict[int, Array] = {}  # gap → (c, stride - 1, h, w)
        self._ready = 0  # positions before this one have been given out
        self._next_key = 0
        if condition is not None:
            for key in range(-plan.given_keys, 0):
                # Keyframe -1 is the last latent given.
                self._keys[key] = condition[:, (key + 1) * plan.stride - 1]

    def before(self, clip: Clip) -> Array:
        """Return the keyframes that a chain clip is given, (c, clip.given, h, w)."""
        return self._stack(range(clip.first - clip.given, clip.first))

    def around(self, gap: int) -> Array:
        """Return the keyframes at both ends of a gap, (c, 2, h, w)."""
        return self._stack((gap - 1, gap))

    def add_keys(self, clip: Clip, latents: Array) -> None:
        """Take the new keyframes (c, clip.new, h, w) of a chain clip."""
        for index in range(clip.new):
            self._keys[clip.first + index] = latents[:, index]
        self._next_key = clip.first + clip.new

    def add_gap(self, gap: int, latents: Array) -> None:
        """Take the latents (c, stride - 1, h, w) between two keyframes."""
        self._gaps[gap] = latents

    def take(self) -> Array | None:
        """Return the latents (c, t, h, w) that follow those taken before, None if none is ready."""
        plan, out = self._plan, []
        while self._ready < plan.latents:
            key = ceil_div(self._ready - plan.position(0), plan.stride)  # the next one, or this
            if plan.position(key) == self._ready:
                if key not in self._keys:
                    break
                out.append(self._keys[key][:, None])
            elif key in self._gaps:
                out.append(self._gaps.pop(key))
            else:
                break
            self._ready += out[-1].shape[1]
        self._forget()
        if not out:
            return None
        ready = np.concatenate(out, axis=1)
        extra = max(0, self._ready - plan.latents)
        return ready[:, : ready.shape[1] - extra]

    def _forget(self) -> None:
        """Drop keyframes that have been taken and that no clip or gap still starts from."""
        chain = self._next_key - self._plan.condition
        for key in list(self._keys):
            if key < chain and self._plan.position(key + 1) <= self._ready:
                del self._keys[key]

    def _stack(self, keys: Sequence[int]) -> Array:
        return np.stack([self._keys[key] for key in keys], axis=1)
