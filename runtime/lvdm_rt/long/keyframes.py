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
        self._refined: dict[int, Array] = {}  # keyframe → (c, stride - 1, h, w) around it
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

    def near(self, key: int) -> Array:
        """Return the window of a keyframe to refine, (c, stride + 1, h, w), as it was sampled."""
        start = self._plan.window(key)
        window = [self._sampled(start + index) for index in range(self._plan.stride + 1)]
        return np.stack(window, axis=1)

    def add_refined(self, key: int, latents: Array) -> None:
        """Take the latents (c, stride - 1, h, w) that replace a keyframe and its neighbours."""
        self._refined[key] = latents

    def take(self) -> Array | None:
        """Return the latents (c, t, h, w) that follow those taken before, None if none is ready."""
        out = []
        while self._ready < self._plan.latents:
            try:
                out.append(self._at(self._ready))
            except KeyError:
                break
            self._ready += 1
        self._forget()
        return np.stack(out, axis=1) if out else None

    def _at(self, position: int) -> Array:
        """Return a latent (c, h, w) as it goes into the video. Raises KeyError: not there yet."""
        place = self._plan.refined_at(position)
        if place is None:
            return self._sampled(position)
        key, index = place
        return self._refined[key][:, index - 1]

    def _sampled(self, position: int) -> Array:
        """Return a latent (c, h, w) as it was sampled first. Raises KeyError: not there yet."""
        plan = self._plan
        key = ceil_div(position - plan.position(0), plan.stride)  # the next one, or this
        before = plan.position(key) - position
        return self._gaps[key][:, plan.stride - 1 - before] if before else self._keys[key]

    def _forget(self) -> None:
        """Drop what has been taken and what no clip, gap or window still starts from."""
        plan, chain = self._plan, self._next_key - self._plan.condition
        for key in list(self._keys):
            if key < chain and plan.position(key + 1) <= self._ready:
                del self._keys[key]
        for gap in [gap for gap in self._gaps if plan.position(gap) < self._ready]:
            del self._gaps[gap]
        for key in [key for key in self._refined if plan.window(key + 1) <= self._ready]:
            del self._refined[key]

    def _stack(self, keys: Sequence[int]) -> Array:
        return np.stack([self._keys[key] for key in keys], axis=1)
