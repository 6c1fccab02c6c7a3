"""What `generate --preview` shows while clips are sampled, and when; knows no latents.

A preview that cannot be written any more ends no run.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lvdm_engines.atomic import remove_leftovers
from lvdm_engines.errors import OptionsError, VideoError
from lvdm_engines.manifest import Manifest
from lvdm_rt.commands.job import GenerateJob
from lvdm_rt.commands.outputs import refuse_existing
from lvdm_rt.decoding.preview import check_preview
from lvdm_rt.progress import Preview
from lvdm_rt.video.glimpse import check_suffix, write_glimpse

_log = logging.getLogger(__name__)

_SECONDS = 0.3  # between two pictures, at least
_SHARE = 10  # and so many times as long as one takes to be written
_ROWS = 8  # clips of a batch, at most
_SIDE = 128  # pixels of a picture's longer side, at most


class PreviewFile:
    """A picture of the clips that are being sampled, a row each, rewritten now and then."""

    def __init__(
        self,
        path: Path,
        frame_size: tuple[int, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to `path`, in the shape of frames (height, width)."""
        scale = min(1.0, _SIDE / max(frame_size))
        height, width = (max(1, round(side * scale)) for side in frame_size)
        self._path, self._size, self._clock = path, (height, width), clock
        self._next = 0.0
        self._failed = False

    def show(self, clips: Sequence[Preview]) -> None:
        """Take the clips of a network call, and write them if it is time."""
        started = self._clock()
        if self._failed or started < self._next:
            return
        try:
            rows = np.stack([clip.pictures for clip in clips[:_ROWS]])
            write_glimpse(self._path, rows, self._size)
        except VideoError as err:
            self._failed = True
            _log.warning("the preview stays as it is: %s", err)
        now = self._clock()
        self._next = now + max(_SECONDS, _SHARE * (now - started))


def preview_file(job: GenerateJob, manifest: Manifest) -> PreviewFile | None:
    """Return the preview of a job, None if it wants none.

    Raises PlanError for a model without a map, OptionsError and VideoError for the place.
    """
    path = job.preview
    if path is None:
        return None
    check_preview(manifest)
    check_suffix(path)
    real = Path(os.path.realpath(path))
    for name in job.names:
        if name != "-" and Path(os.path.realpath(name)) in (real, *real.parents):
            raise OptionsError(f"{path} lies where the video goes, {name}; choose another preview")
    if job.condition is not None and real == Path(os.path.realpath(job.condition)):
        raise OptionsError(f"{path} is what is continued; choose another preview")
    if not path.parent.is_dir():
        raise VideoError(f"cannot write {path}: there is no directory {path.parent}; make it first")
    if path.is_dir() or path.is_symlink():
        raise OptionsError(f"cannot write {path}: it is no file; choose another name")
    if not (job.force or job.resume):
        refuse_existing(path)
    remove_leftovers(path)
    return PreviewFile(path, manifest.model.frame_size)
