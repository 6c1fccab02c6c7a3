"""Which text each clip of a video is told: a function of its site and nothing else.

Of several prompts along a video, keyframes change from one to the next between two clips of the
chain, at the clip whose middle comes first after the prompt's frame. From the last keyframe told
one text to the first told another the context goes linearly; the clip that fills this gap is told
what lies in its middle, the mean.
"""

from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.diffusion.guidance import TextCondition
from lvdm_rt.diffusion.noise import Site, Stage
from lvdm_rt.long.plan import ClipPlan
from lvdm_rt.text.prompts import Prompts

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """The text of a run: `context(text)` is (l, d), `prompts(video)` what a video shows."""

    context: Callable[[str], Array]
    prompts: Callable[[int], Prompts]
    negative: str
    weight: float
    frames_per_latent: int

    def told(self, plan: ClipPlan, sites: Sequence[Site]) -> TextCondition:
        """Return what the clips of a batch are told."""
        rows = [self._context(plan, site) for site in sites]
        return TextCondition(np.stack(rows), self.context(self.negative), self.weight)

    def _context(self, plan: ClipPlan, site: Site) -> Array:
        prompts = self.prompts(site.video)
        before, after = (
            prompts[prompt_of(prompts, plan, clip, self.frames_per_latent)][1]
            for clip in _clips(plan, site)
        )
        if before == after:
            return self.context(before)
        return (self.context(before) + self.context(after)) / np.float32(2)


def prompt_of(prompts: Prompts, plan: ClipPlan, clip: int, frames_per_latent: int) -> int:
    """Return which of the prompts clip `clip` of the chain is told."""
    first, new, _ = plan.chain(clip)
    middle = (plan.position(first) + plan.position(first + new - 1)) / 2 * frames_per_latent
    return bisect([frame for frame, _ in prompts], middle) - 1


def unreached(prompts: Prompts, plan: ClipPlan, frames_per_latent: int) -> list[int]:
    """Return the first frames of the prompts that no clip is told."""
    if len(prompts) == 1:
        return []
    told = {prompt_of(prompts, plan, clip, frames_per_latent) for clip in range(plan.clips)}
    return [frame for number, (frame, _) in enumerate(prompts) if number not in told]


def _clips(plan: ClipPlan, site: Site) -> tuple[int, int]:
    """Return the clips of the chain that made the keyframes at the ends of a clip."""
    if site.stage is Stage.INFILL:
        return plan.clip_of(site.clip - 1), plan.clip_of(site.clip)
    clip = plan.clip_of(site.clip) if site.stage is Stage.REFINE else site.clip
    return clip, clip
