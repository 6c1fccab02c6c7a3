"""Training clips of the denoiser: the three kinds, their masks and their noise; NumPy only.

A batch holds clips of one length and stride. Where one network is trained for two strides, it is
told the stride (`network.max_stride`), or the clip's length has to tell them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.diffusion.condition import perturb
from lvdm_rt.diffusion.schedule import Schedule, make_schedule
from lvdm_tools.train.config import ClipKind, DiffusionRun
from lvdm_tools.train.draws import DrawStream, generator

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Example:
    """One clip to denoise: x and eps (c, t, h, w), mask (t); noise level −1 = none.

    `sequence` says which one it was cut from, `stride` how far apart its latents lie in it.
    """

    x: Array
    eps: Array
    timestep: int
    mask: Array
    noise_level: int
    sequence: int
    stride: int


@dataclass(frozen=True, eq=False)
class ClipMaker:
    """Draws training clips from normalised sequences (n, c, t, h, w)."""

    sequences: Array
    kinds: Sequence[ClipKind]
    schedule: Schedule
    noise_levels: int
    seed: int
    clean_conditions: float = 0.0
    timesteps: Sequence[int] = ()  # the only ones to noise to; all, where there are none

    def shape_of_step(self, step: int) -> list[ClipKind]:
        """Draw the length and stride of a step's clips: the kinds that share them."""
        kind = self._draw(self.kinds, generator(self.seed, DrawStream.KIND, step))
        return [k for k in self.kinds if (k.latents, k.stride) == (kind.latents, kind.stride)]

    def example(self, step: int, item: int) -> Example:
        """Make clip `item` of a step."""
        rng = generator(self.seed, DrawStream.CLIP, step, item)
        kind = self._draw(self.shape_of_step(step), rng)
        clip, sequence = self.cut(kind, rng)
        return self.noised(clip, given(kind), rng, sequence, kind.stride)

    def cut(self, kind: ClipKind, rng: np.random.Generator) -> tuple[Array, int]:
        """Cut a clip (c, t, h, w) from a random place of a random sequence, and say of which."""
        number = int(rng.integers(len(self.sequences)))
        sequence = self.sequences[number]
        span = (kind.latents - 1) * kind.stride + 1
        start = int(rng.integers(sequence.shape[1] - span + 1))
        clip: Array = sequence[:, start : start + span : kind.stride]
        return clip, number

    def noised(
        self,
        z_0: Array,
        mask: Array,
        rng: np.random.Generator,
        sequence: int = 0,
        stride: int = 1,
    ) -> Example:
        """Noise a clip to a random timestep; given frames enter perturbed to a random level s.

        x = q(z_0, t)·(1 − m) + q(z_0, s)·m (LVDM, sections 3.2 and 3.3), s ~ U{0 … levels − 1};
        a share of `clean_conditions` enters as z_0, with s = −1.
        """
        known = self.timesteps or range(self.schedule.steps)
        timestep = int(known[int(rng.integers(len(known)))])
        eps = rng.standard_normal(z_0.shape, np.float32)
        x, level = perturb(z_0, timestep, eps, self.schedule), -1
        if mask.any():
            condition = z_0
            clean = self.clean_conditions > 0 and rng.random() < self.clean_conditions
            if self.noise_levels and not clean:
                level = int(rng.integers(self.noise_levels))
                noise = rng.standard_normal(z_0.shape, np.float32)
                condition = perturb(z_0, level, noise, self.schedule)
            x = np.where(mask[:, None, None] > 0, condition, x)
        return Example(x, eps, timestep, mask, level, sequence, stride)

    @staticmethod
    def _draw(kinds: Sequence[ClipKind], rng: np.random.Generator) -> ClipKind:
        weights = np.array([kind.probability for kind in kinds])
        return kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]


def given(kind: ClipKind) -> Array:
    """Return the mask (t): 1 at the frames that this kind of clip is given."""
    mask = np.zeros(kind.latents, np.float32)
    if kind.kind == "predict":
        mask[: kind.condition] = 1.0
    elif kind.kind == "interpolate":
        mask[[0, -1]] = 1.0
    return mask


def schedule_of(run: DiffusionRun) -> Schedule:
    """Return the noise schedule of a run."""
    facts = run.schedule
    return make_schedule(facts.kind, facts.steps, facts.beta_start, facts.beta_end)
