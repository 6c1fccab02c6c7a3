"""Videos on their way: what each batch of clips is sampled from, and which latents are ready.

Knows plans and keyframes; nothing of networks or noise.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.manifest import LatentFacts
from lvdm_rt.diffusion.noise import Site, Stage
from lvdm_rt.long.keyframes import VideoLatents
from lvdm_rt.long.plan import ClipBatch, ClipPlan

Array = NDArray[np.float32]


class LatentChunk(NamedTuple):
    """Consecutive latents (c, t, h, w) of one video; `start` is the position of the first."""

    video: int
    start: int
    latents: Array


class ClipWork(NamedTuple):
    """A batch of clips, and all that they need of their videos: the latents that they are given.

    These are `known` (b, c, n, h, w); a second pass starts from `drafts` (b, c, t, h, w) as well.
    """

    batch: ClipBatch
    known: Array
    drafts: Array | None = None


class VideosInWork:
    """Videos while they are sampled: what clips start from, and what came of them.

    Batches may be finished in any order in which each has what it needs.
    """

    def __init__(self, plan: ClipPlan, latent: LatentFacts, condition: Array | None) -> None:
        """Take the plan of each video, and the last latents (c, plan.given, h, w) given."""
        self._plan, self._latent, self._condition = plan, latent, condition
        self._videos: dict[int, VideoLatents] = {}
        self._starts: dict[int, int] = {}

    def work(self, batch: ClipBatch) -> ClipWork:
        """Return what a batch is sampled from. Raises KeyError if that is not there yet."""
        if batch.stage is Stage.REFINE:
            drafts = np.stack([self._video(site).near(site.clip) for site in batch.sites])
            given = window_of(self._plan, batch).given
            return ClipWork(batch, drafts[:, :, given], drafts)
        return ClipWork(batch, np.stack([self._known(site) for site in batch.sites]))

    def keep(self, batch: ClipBatch, latents: Iterable[Array]) -> Iterator[LatentChunk]:
        """Take the new latents (c, t, h, w) of each clip, and yield those that are ready."""
        for site, new in zip(batch.sites, latents, strict=True):
            _keep(self._plan, self._video(site), site, new)
        for video in dict.fromkeys(site.video for site in batch.sites):
            ready = self._videos[video].take()
            if ready is None:
                continue
            start = self._starts[video]
            self._starts[video] += ready.shape[1]
            if self._starts[video] >= self._plan.latents:
                del self._videos[video], self._starts[video]
            yield LatentChunk(video, start, ready)

    def _video(self, site: Site) -> VideoLatents:
        if site.video not in self._videos:
            self._videos[site.video] = VideoLatents(self._plan, self._condition)
            self._starts[site.video] = 0
        return self._videos[site.video]

    def _known(self, site: Site) -> Array:
        """Return the given latents (c, n, h, w) of a clip."""
        if site.stage is Stage.INFILL:
            return self._video(site).around(site.clip)
        clip = self._plan.chain(site.clip)
        if clip.given == 0:
            return np.zeros((self._latent.channels, 0, *self._latent.size), np.float32)
        return self._video(site).before(clip)


def _keep(plan: ClipPlan, video: VideoLatents, site: Site, latents: Array) -> None:
    if site.stage is Stage.INFILL:
        video.add_gap(site.clip, latents)
    elif site.stage is Stage.REFINE:
        video.add_refined(site.clip, latents)
    else:
        video.add_keys(plan.chain(site.clip), latents)


@dataclass(frozen=True)
class ClipWindow:
    """The window of a batch's clips: its length, which latents are given, and their stride."""

    clip: int
    given: tuple[int, ...]
    stride: int = 1

    @property
    def new(self) -> list[int]:
        """The latents that are sampled."""
        return [t for t in range(self.clip) if t not in self.given]


def window_of(plan: ClipPlan, batch: ClipBatch) -> ClipWindow:
    """Return the window of a batch."""
    if batch.stage in (Stage.INFILL, Stage.REFINE):
        return ClipWindow(plan.stride + 1, (0, plan.stride))
    given = tuple(range(plan.chain(batch.sites[0].clip).given))
    return ClipWindow(plan.clip, given, plan.stride)
