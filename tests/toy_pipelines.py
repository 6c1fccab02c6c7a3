"""Models that need no networks, for what measures them: one has learnt the sky, one is grey."""

import numpy as np
import toy

from lvdm_engines.manifest import LatentFacts
from lvdm_rt.long.videos import LatentChunk
from lvdm_rt.options import resolve
from lvdm_rt.pipeline import Chunk
from lvdm_tools.data.source import HELD_OUT
from lvdm_tools.data.synth import sky_clip

GRAPHS = ("encoder", "decoder", "predict", "interpolate")


def manifest(names=GRAPHS, name="fake"):
    """A model whose latents are its frames, four to a latent."""
    latent = LatentFacts(channels=12, size=(2, 2), scale=1.0, shift=0.0)
    graphs = {n: toy.graph_facts(f"{n}.onnx", inputs=(), outputs=()) for n in names}
    return toy.manifest(name=name, model=toy.model_facts(latent=latent), graphs=graphs)


def to_latents(frames):
    """Put four frames of three colours into the channels of one latent, losing nothing."""
    t, h, w = len(frames) // 4, *frames.shape[1:3]
    return frames.reshape(t, 4, h, w, 3).transpose(1, 4, 0, 2, 3).reshape(12, t, h, w)


def to_frames(latents):
    _, t, h, w = latents.shape
    return latents.reshape(4, 3, t, h, w).transpose(2, 0, 3, 4, 1).reshape(4 * t, h, w, 3)


class PerfectPipeline:
    """A model that has learnt the data: its videos are skies that no other part draws."""

    arithmetic = "none"

    def __init__(self, graphs=GRAPHS, name="fake"):
        self.manifest = manifest(graphs, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def settings(self, options):
        return resolve(options, self.manifest)

    def condition_frames(self, options):
        return 6

    def stream_videos(self, options):
        for start in range(0, options.frames, 4):
            for video in range(options.first_video, options.first_video + options.videos):
                count = min(4, options.frames - start)
                yield Chunk(video, start, self.frames(video, start, count))

    def frames(self, video, start, count):
        return sky_clip(0, count, 16, index=HELD_OUT + 5000 + video, start=start)

    def stream(self, options, *, condition):
        assert condition.shape == (8, 16, 16, 3)  # six frames are asked, latents hold four
        yield condition[-1:]
        yield condition

    def sample_latents(self, options, *, condition):
        yield LatentChunk(0, 0, to_latents(np.repeat(condition[-1:], 4, axis=0)))

    def encode(self, frames):
        return to_latents(frames)

    def decode(self, latents):
        frames = to_frames(latents)
        yield frames[:3]
        yield frames[3:]


class GreyPipeline(PerfectPipeline):
    """A model that gives grey frames whatever it is asked."""

    def frames(self, video, start, count):
        return np.full((count, 16, 16, 3), 90, np.uint8)

    def stream(self, options, *, condition):
        yield self.frames(0, 0, 4)

    def decode(self, latents):
        yield np.full_like(to_frames(latents), 90)
