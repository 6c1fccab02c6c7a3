"""The decoding half of the pipeline: latents of several videos in, their frames out."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvdm_rt.decoding.detail_fade import DetailFade
from lvdm_rt.decoding.windows import DecodeWindow, WindowedDecoder
from lvdm_rt.long.plan import ClipPlan
from lvdm_rt.long.videos import LatentChunk

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


class FilmWindow(NamedTuple):
    """A decode window of one video, which it ends or not."""

    video: int
    window: DecodeWindow
    ends: bool


class FilmsInWork:
    """Videos while they are decoded: which windows to decode, and what frames come of them.

    `before` holds the latents (c, plan.lead, h, w) of the condition that the first window shares
    with the new ones, so that there is no seam; their own frames are not yielded, the last of them
    starts the fade.
    """

    def __init__(
        self,
        plan: ClipPlan,
        new_decoder: Callable[[], WindowedDecoder],
        before: Latents | None,
        new_fade: Callable[[], DetailFade | None],
    ) -> None:
        self._plan, self._before = plan, before
        self._new_decoder, self._new_fade = new_decoder, new_fade
        self._videos: dict[int, _VideoOnItsWay] = {}

    def windows(self, chunk: LatentChunk) -> Iterator[FilmWindow]:
        """Take the next latents of a video and yield the windows to decode."""
        video, start, z = chunk
        if video not in self._videos:
            self._videos[video] = self._begun()
            if self._before is not None:
                z = np.concatenate([self._before, z], axis=1)
        decoder = self._videos[video].decoder
        windows = list(decoder.cut(z))
        ended = start + chunk.latents.shape[1] >= self._plan.latents
        if ended:
            windows.extend(decoder.cut_last())
        for number, window in enumerate(windows, start=1):
            yield FilmWindow(video, window, ended and number == len(windows))

    def decoded(self, window: FilmWindow) -> Frames:
        """Decode a window here."""
        return self._videos[window.video].decoder.decode(window.window.latents)

    def chunks(self, window: FilmWindow, decoded: Frames) -> Iterator[Chunk]:
        """Yield the frames that are final once a window is decoded; windows in their order."""
        state = self._videos[window.video]
        yield from self._new(state, window.video, [state.decoder.join(window.window, decoded)])
        if window.ends:
            yield from self._new(state, window.video, state.decoder.rest())
            del self._videos[window.video]

    def _begun(self) -> _VideoOnItsWay:
        decoder = self._new_decoder()
        skip = self._plan.lead * decoder.per_latent
        return _VideoOnItsWay(decoder, skip, self._plan.frames, self._new_fade())

    def _new(self, state: _VideoOnItsWay, video: int, pieces: Iterable[Frames]) -> Iterator[Chunk]:
        for frames in state.cut(pieces):
            yield Chunk(video, self._plan.frames - state.left - len(frames), frames)


def decode_videos(
    films: FilmsInWork, latents: Generator[LatentChunk, None, None]
) -> Generator[Chunk, None, None]:
    """Decode videos as their latents come and yield exactly `plan.frames` frames of each."""
    with closing(latents):
        for chunk in latents:
            for window in films.windows(chunk):
                yield from films.chunks(window, films.decoded(window))
