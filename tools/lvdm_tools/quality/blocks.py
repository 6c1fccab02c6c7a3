"""Which blocks of long videos are measured, and how those of a bundle are decoded without the rest.

Most of a long video's time goes into decoding. Latents have to be sampled one after another, but
windows of the decoder do not depend on each other: a block is decoded with those beside it, and
has the frames that it has in the whole video.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.manifest import ModelFacts
from lvdm_rt.options import GenerateOptions
from lvdm_rt.pipeline import Pipeline
from lvdm_tools.quality.networks import CLIP


@dataclass(frozen=True)
class Wanted:
    """Every Nth block of the first `frames` of a video, and the last block, in clips."""

    frames: int
    block: int
    every: int = 1

    @cached_property
    def blocks(self) -> list[int]:
        """The first frame of each block."""
        starts = range(0, self.frames, self.block)
        return sorted({*starts[:: self.every], starts[-1]})

    @cached_property
    def clips(self) -> list[int]:
        """The number of each clip in the video."""
        per_block = self.block // CLIP
        return [first // CLIP + i for first in self.blocks for i in range(per_block)]


def clips_of_blocks(
    pipeline: Pipeline, options: GenerateOptions, wanted: Wanted
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Sample whole videos and decode the blocks that are wanted: video, clip, (16, h, w, 3)."""
    settings, facts = pipeline.settings(options), pipeline.manifest.model
    sampled: dict[int, list[NDArray[np.float32]]] = {}
    with closing(pipeline.sample_latents(settings)) as chunks:
        for video, _, latents in chunks:
            sampled.setdefault(video, []).append(latents)
    for video, parts in sampled.items():
        whole = np.concatenate(parts, axis=1)
        for first in wanted.blocks:
            low, high = piece(first, first + wanted.block, facts, settings.overlap)
            decoded = pipeline.decode(whole[:, low:high], settings.overlap)
            skip = first - low * facts.frames_per_latent
            block = np.concatenate(list(decoded))[skip:]
            for number in range(wanted.block // CLIP):
                clip = block[number * CLIP : (number + 1) * CLIP]
                yield video, first // CLIP + number, clip


def piece(first: int, last: int, facts: ModelFacts, overlap: int) -> tuple[int, int]:
    """Return the latents to decode for frames `first` to `last` as in the whole video.

    They begin where a window of the whole video does, early enough for the first frame to be
    blended, and end with the window that blends the last one; a video may end before.
    """
    step, per = facts.decode_window - overlap, facts.frames_per_latent
    low = max(0, first // per - overlap) // step * step
    windows = -(-(-(-last // per) - low) // step)
    return low, low + windows * step + overlap
