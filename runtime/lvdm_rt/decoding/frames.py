"""The decoding half of the pipeline: latents of several videos in, their frames out."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.decoding.detail_fade import DetailFade
from lvdm_rt.decoding.windows import WindowedDecoder
from lvdm_rt.long.plan import ClipPlan
from lvdm_rt.long.sampling import LatentChunk

Frames = NDArray[np.uint8]
Latents = NDArray[np.float32]


class Chunk(NamedTuple):
    """Consecutive frames (f, h, w, 3) of one video; `start` is the index of the first."""

    video: int
    start: int
    frames: Frames


@dataclass
class _VideoOnItsWay:
    """One video on its way: `skip` frames of the condition come first, `left` are to be given."""

    decoder: WindowedDecoder
    skip: int
    left: int
    fade: DetailFade | None

    def cut(self, pieces: Iterable[Frames]) -> Iterator[Frames]:
        for frames in pieces:
            if self.fade is not None and 0 < self.skip <= len(frames):
                self.fade.start(frames[self.skip - 1])
            new = frames[self.skip :][: self.left]
            self.skip -= min(self.skip, len(frames))
            self.left -= len(new)
            if len(new):
                yield new if self.fade is None else self.fade.apply(new)


def decode_videos(
    plan: ClipPlan,
    latents: Generator[LatentChunk, None, None],
    new_decoder: Callable[[], WindowedDecoder],
    before: Latents | None,
    new_fade: Callable[[], DetailFade | None],
) -> Generator[Chunk, None, None]:
    """Decode videos as their latents come and yield exactly `plan.frames` frames of each.

    `before` holds the latents (c, plan.lead, h, w) of the condition that the first window shares
    with the new ones, so that there is no seam; their own frames are not yielded, the last of them
    starts the fade.
    """
    videos: dict[int, _VideoOnItsWay] = {}
    with closing(latents):
        for video, start, z in latents:
            ended = start + z.shape[1] >= plan.latents
            if video not in videos:
                decoder = new_decoder()
                skip = plan.lead * decoder.per_latent
                videos[video] = _VideoOnItsWay(decoder, skip, plan.frames, new_fade())
                if before is not None:
                    z = np.concatenate([before, z], axis=1)  # noqa: PLW2901 - the same video
            state = videos[video]
            yield from _chunks(plan, video, state, state.decoder.push(z))
            if ended:
                yield from _chunks(plan, video, state, state.decoder.finish())
                del videos[video]


def _chunks(
    plan: ClipPlan, video: int, state: _VideoOnItsWay, pieces: Iterable[Frames]
) -> Iterator[Chunk]:
    for frames in state.cut(pieces):
        yield Chunk(video, plan.frames - state.left - len(frames), frames)
