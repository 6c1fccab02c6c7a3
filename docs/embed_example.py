"""Continue a video and write old and new frames into one file, without holding it in memory."""

import sys
from fractions import Fraction
from itertools import chain
from pathlib import Path

from lvdm_rt import GenerateOptions, Pipeline
from lvdm_rt.video import ReadSpec, VideoSpec, open_writer, read_frames, read_last_frames


def continue_video(source: Path, target: str, options: GenerateOptions, bundle: str) -> None:
    """Write the frames of `source`, then new ones, to `target`, at the model's size and rate."""
    with Pipeline.open(bundle) as pipeline:
        size, fps = pipeline.manifest.model.frame_size, Fraction(pipeline.manifest.defaults.fps)
        spec = ReadSpec(size=size, fps=fps)  # turned upright, cropped, resized, resampled
        count = sum(len(frames) for frames in read_frames(source, spec))
        last = read_last_frames(source, spec, pipeline.condition_frames(options))
        made = VideoSpec(frames=count + options.frames, size=size, fps=fps)
        with open_writer(target, made) as writer:
            new = pipeline.stream(options, condition=last)
            for frames in chain(read_frames(source, spec), new):  # uint8 (f, h, w, 3)
                writer.write(frames)


if __name__ == "__main__":
    continue_video(Path(sys.argv[1]), sys.argv[2], GenerateOptions(frames=64, seed=7), "sky-tiny")
