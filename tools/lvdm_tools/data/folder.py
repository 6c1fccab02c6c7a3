"""A folder of videos, and of folders of pictures, as a source of clips.

Owns which videos are usable, which of them are held out, and where clips start.
"""

import hashlib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.atomic import open_file
from lvdm_engines.errors import TrainingError, cause, quoted
from lvdm_rt.video.reader import PICTURES, picture_files
from lvdm_tools.data.caption_file import read_captions
from lvdm_tools.data.clip import ClipSpec
from lvdm_tools.data.video_file import count_frames, read_clip

logger = logging.getLogger(__name__)

# fmt: off
SUFFIXES = frozenset([
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif",
    ".mpg", ".mpeg", ".ts", ".ogv", ".wmv", ".flv", ".y4m",
    ".npz",
])
# fmt: on
HELD_OUT_SHARE = 10  # one video in this many is held out
_SAMPLE = 1 << 14  # bytes
_TRIES = 100  # clips drawn anew before giving up on a folder whose videos turn out damaged


@dataclass(frozen=True)
class Video:
    """A usable file or folder of pictures, and the frames that clips may use: first ≤ … < last."""

    path: Path
    first: int
    last: int


@dataclass
class VideoFolder:
    """Clips from all videos below a folder, a video drawn in proportion to its length.

    A folder that holds pictures and no video file is a video as well: its pictures in the order of
    their names, numbers as numbers. The LVDM authors keep data as VIDEO/CLIP/PICTURES.
    `skipped` maps each video that could not be used to the first reason; it decides nothing.
    """

    spec: ClipSpec
    seed: int
    videos: tuple[Video, ...]
    skipped: dict[Path, str] = field(default_factory=dict)
    identity: str = ""
    captions: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, listing: "Listing", spec: ClipSpec, seed: int, *, held_out: bool) -> Self:
        """Take the videos for training, or those that are held out, which are long enough.

        Of several videos, one in ten (the last of fewer) is held out; of one, its last fifth.
        Raises TrainingError: none is long enough.
        """
        share = _split(listing.lengths, held_out)
        videos = tuple(v for v in share if v.last - v.first >= spec.span)
        if not videos:
            raise TrainingError(
                f"{listing.folder}: no {'held-out' if held_out else 'training'} video has the "
                f"{spec.span} frames that clips of {spec.frames} at stride {spec.stride} need (the "
                f"longest of all has {max(listing.lengths.values())}); lower frames or stride, or "
                "add longer videos"
            )
        return cls(spec, seed, videos, dict(listing.skipped), listing.identity, listing.captions)

    def clip(self, index: int) -> NDArray[np.uint8]:
        """Cut clip `index`: the video and its start are drawn from (seed, index).

        Raises TrainingError: videos keep failing while they are read.
        """
        return self._read(index)[1]

    def captioned(self, index: int) -> tuple[NDArray[np.uint8], str]:
        """Cut clip `index`, and take a caption of its video in turn; raises as `clip` does."""
        video, frames = self._read(index)
        texts = self.captions.get(video.path, ("",))
        return frames, texts[index % len(texts)]

    def _read(self, index: int) -> tuple[Video, NDArray[np.uint8]]:
        starts = np.cumsum([v.last - v.first - self.spec.span + 1 for v in self.videos])
        for attempt in range(_TRIES):
            rng = np.random.Generator(
                np.random.Philox(np.random.SeedSequence([self.seed, index, attempt]))
            )
            draw = int(rng.integers(starts[-1]))
            chosen = int(np.searchsorted(starts, draw, side="right"))
            video = self.videos[chosen]
            start = video.first + draw - (int(starts[chosen - 1]) if chosen else 0)
            try:
                return video, read_clip(video.path, start, self.spec)
            except TrainingError as err:
                # tried again for the next clip: what one clip shows must not depend on others
                if video.path not in self.skipped:
                    self.skipped[video.path] = str(err)
                    logger.warning("skipping a video (%d so far): %s", len(self.skipped), err)
        raise TrainingError(
            f"no clip could be read in {_TRIES} tries; {len(self.skipped)} of the videos are "
            f"damaged ({_first(self.skipped)}): check the data folder"
        )


@dataclass(frozen=True)
class Listing:
    """What lies below a folder: frames of every readable video, the reason for every other one."""

    folder: Path
    lengths: dict[Path, int]
    skipped: dict[Path, str]
    captions: dict[Path, tuple[str, ...]]

    @cached_property
    def identity(self) -> str:
        """What the clips depend on: names, lengths and samples of the bytes of usable files.

        Raises TrainingError: a picture cannot be read.
        """
        try:
            return self._digest()
        except OSError as err:
            raise TrainingError(
                f"cannot read {err.filename}: {cause(err, 'restore it, or remove it')}"
            ) from err

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for path, frames in self.lengths.items():
            name = path.relative_to(self.folder).as_posix()
            files = picture_files(path) if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in files)
            digest.update(repr((name, size, frames)).encode())
            for place in sorted({0, len(files) // 2, len(files) - 1}):
                digest.update(_sample(files[place]))
            if path in self.captions:
                digest.update(repr(self.captions[path]).encode())
        return f"{len(self.lengths)} videos, {digest.hexdigest()[:16]}"


def _sample(path: Path) -> bytes:
    """Read the start, the middle and the end of a file."""
    size = path.stat().st_size
    with open_file(path) as file:
        parts = []
        for place in (0, size // 2, max(size - _SAMPLE, 0)):
            file.seek(place)
            parts.append(file.read(_SAMPLE))
    return b"".join(parts)


def look(folder: Path, *, captioned: bool = False) -> Listing:
    """Look at every video below `folder`, and read captions if asked for.

    Raises TrainingError: no such folder, not readable, without a video, or with captions that are
    none.
    """
    lengths: dict[Path, int] = {}
    skipped: dict[Path, str] = {}
    for path in find_videos(folder):
        try:
            lengths[path] = count_frames(path)
        except TrainingError as err:
            skipped[path] = str(err)
            logger.warning("skipping a video (%d so far): %s", len(skipped), err)
    if not lengths:
        raise TrainingError(
            f"{folder} holds no readable video"
            + (f" ({len(skipped)} skipped: {_first(skipped)})" if skipped else "")
            + f"; expected files that end in {', '.join(sorted(SUFFIXES))}, or folders of pictures "
            f"({', '.join(PICTURES)})"
        )
    captions = _captions(folder, lengths | skipped) if captioned else {}
    return Listing(folder, lengths, skipped, captions)


def _captions(folder: Path, videos: Collection[Path]) -> dict[Path, tuple[str, ...]]:
    captions = {folder / name: texts for name, texts in read_captions(folder).items()}
    absent = [path for path in captions if path not in videos]
    if absent:
        logger.warning(
            "%d files that have captions are no videos of %s, such as %s",
            len(absent),
            folder,
            quoted(str(absent[0].relative_to(folder))),
        )
    return captions


def find_videos(folder: Path) -> list[Path]:
    """Return every video file and folder of pictures below `folder`, in the order of their names.

    Raises TrainingError: no such folder, or not readable.
    """

    def pass_over(err: OSError) -> None:
        if Path(err.filename) == folder:
            raise err
        logger.warning("skipping the folder %s: %s", err.filename, err.strerror)

    try:
        if not folder.is_dir():
            raise TrainingError(f"{folder} is not a folder; give a folder of videos, or: synth")
        walk = os.walk(folder, onerror=pass_over)
        return sorted(path for parent, _, names in walk for path in _of_folder(Path(parent), names))
    except OSError as err:
        raise TrainingError(f"cannot read {err.filename}: {cause(err, 'restore it')}") from err


def _of_folder(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the video files of a folder, or the folder itself where it holds pictures only."""
    files = [folder / name for name in names]
    videos = [file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()]
    pictures = any(file.suffix.lower() in PICTURES for file in files)
    films = any(file.suffix.lower() != ".npz" for file in videos)  # archives may hold anything
    return [folder] if pictures and not films else videos


def _split(lengths: dict[Path, int], held_out: bool) -> list[Video]:
    if len(lengths) == 1:
        ((path, frames),) = lengths.items()
        cut = frames - frames // 5
        return [Video(path, cut, frames) if held_out else Video(path, 0, cut)]
    # Sorted names, evenly spread: the split does not depend on the seed of a run.
    step = min(HELD_OUT_SHARE, len(lengths))
    return [
        Video(path, 0, frames)
        for number, (path, frames) in enumerate(lengths.items())
        if (number % step == step - 1) == held_out
    ]


def _first(skipped: dict[Path, str]) -> str:
    return next(iter(skipped.values()))
