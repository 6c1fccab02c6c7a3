"""Video files: uint8 frames in from any container, out to one of a few formats.

Of the runtime the only package that imports PyAV. Knows frames, sizes and rates; nothing of models.
"""

from lvdm_rt.video.containers import FrameSink
from lvdm_rt.video.film import MAX_PIXELS
from lvdm_rt.video.reader import PICTURES, ReadSpec, read_frames, read_last_frames
from lvdm_rt.video.sidecar import is_finished, read_sidecar, sidecar_path
from lvdm_rt.video.spec import OUTPUT_KINDS, Frames, OutputKind, VideoSpec, output_kind
from lvdm_rt.video.writer import VideoWriter, check_output, missing_encoder, open_writer

__all__ = [
    "MAX_PIXELS",
    "OUTPUT_KINDS",
    "PICTURES",
    "FrameSink",
    "Frames",
    "OutputKind",
    "ReadSpec",
    "VideoSpec",
    "VideoWriter",
    "check_output",
    "is_finished",
    "missing_encoder",
    "open_writer",
    "output_kind",
    "read_frames",
    "read_last_frames",
    "read_sidecar",
    "sidecar_path",
]
