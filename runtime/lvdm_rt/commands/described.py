"""What all videos of a job have in common: frames, sizes, settings, and what they continue."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from lvdm_rt.video import MAX_PIXELS, PICTURES, Frames, ReadSpec, VideoSpec, read_frames


@dataclass(frozen=True, kw_only=True)
class Described:
    """One job, told in its sidecars: `--resume` and `--from` know a video by `settings`.

    `each` has what differs between videos that were asked for one by one. `frames` are new; the
    `given` frames of `condition` come before them where they are joined.
    """

    frames: int
    size: tuple[int, int]
    fps: Fraction
    settings: dict[str, Any]
    first_video: int
    crf: int | None
    condition: Path | None = None
    given: int = 0
    max_pixels: int = MAX_PIXELS
    each: tuple[dict[str, Any], ...] = ()

    def settings_of(self, index: int) -> dict[str, Any]:
        """Return the settings of one of the videos, as if it had been made alone."""
        own = self.each[index] if self.each else {}
        first = own.get("first_video", self.first_video + index)
        return {**self.settings, **own, "video": first}

    def spec(self, settings: str) -> VideoSpec:
        """Return what the writer of one video needs."""
        sound = None
        if self.condition is not None and self.given and _may_sound(self.condition):
            sound = (self.condition, self.given / self.fps)
        return VideoSpec(
            frames=self.given + self.frames,
            size=self.size,
            fps=self.fps,
            settings=settings,
            crf=self.crf,
            sound=sound,
        )

    def joined(self) -> Iterator[Frames]:
        """Yield the frames that come before the new ones."""
        if self.condition is not None and self.given:
            spec = ReadSpec(
                size=self.size, fps=self.fps, max_pixels=self.max_pixels, warn=False
            )  # what is missing was told when it was read before
            yield from read_frames(self.condition, spec)


def _may_sound(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() not in (".npz", *PICTURES)
