"""Continue a video: decode it with PyAV, generate what follows, mux both into one file."""

import sys
from itertools import chain

import av
import numpy as np

from lvdm_rt import GenerateOptions, Pipeline


def continue_video(source: str, target: str, options: GenerateOptions, bundle: str) -> None:
    """Write the frames of `source`, then the new ones, to `target`."""
    with Pipeline.open(bundle) as pipeline, av.open(source) as given, av.open(target, "w") as made:
        height, width = pipeline.manifest.model.frame_size
        stream = made.add_stream("libx264", round(pipeline.manifest.defaults.fps))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        resized = (frame.reformat(width, height, "rgb24") for frame in given.decode(video=0))
        past = np.stack([frame.to_ndarray() for frame in resized])  # uint8 (f, h, w, 3)
        for frames in chain([past], pipeline.stream(options, condition=past)):
            for pixels in frames:
                made.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        made.mux(stream.encode())


if __name__ == "__main__":
    continue_video(sys.argv[1], sys.argv[2], GenerateOptions(frames=64, seed=7), "sky-tiny")
