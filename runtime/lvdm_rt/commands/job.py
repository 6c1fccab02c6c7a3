"""What a command line asks for, and what came of it; knows nothing of how videos are made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvdm_engines.backends.backend import SessionOptions
from lvdm_rt.commands.listing import Group, ListedVideo, grouped, listed_names
from lvdm_rt.commands.outputs import output_names
from lvdm_rt.options import GenerateOptions
from lvdm_rt.video import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class GenerateJob:
    """What to generate, with what, and where it goes (see `output_kind` for `out`).

    `listed` are videos that differ in prompt, seed, length and name; those without a name are
    numbered after `out`.

    `condition` has pictures of at most `max_pixels`; `join` puts its frames before the new ones.
    `preview` is a picture of what is being sampled, rewritten as that changes.
    `force` replaces what lies at `out`, `restart` throws away what an interrupted run left.
    `repeats` holds the settings of a sidecar that this job must repeat.
    """

    out: str | None
    options: GenerateOptions
    bundle: str = "sky-tiny"
    backend: str = "auto"
    session: SessionOptions | None = None
    condition: Path | None = None
    preview: Path | None = None
    max_pixels: int = MAX_PIXELS
    join: bool = False
    crf: int | None = None
    resume: bool = False
    restart: bool = False
    force: bool = False
    repeats: dict[str, Any] | None = None
    listed: tuple[ListedVideo, ...] = ()

    @property
    def videos(self) -> int:
        """How many videos it is."""
        return len(self.listed) or self.options.videos

    @property
    def frames(self) -> int:
        """New frames of all videos."""
        own = self.options.frames
        if not self.listed:
            return own * self.options.videos
        return sum(own if line.frames is None else line.frames for line in self.listed)

    @property
    def names(self) -> list[str]:
        """Where the videos go, in their order."""
        if self.listed:
            return listed_names(self.listed, self.out)
        return output_names(self.out or "", self.options.videos)

    def groups(self) -> list[Group]:
        """Return what is made in one call each: all videos, or those of a list that are as long."""
        if self.listed:
            return grouped(self.listed, self.out, self.options)
        return [Group(self.names, [self.options])]


@dataclass(frozen=True)
class Result:
    """What was written, in the order of the videos, by which backend and with what settings.

    Of a list these are the settings of each video.
    """

    outputs: tuple[str, ...]
    backend: str
    settings: dict[str, Any] | list[dict[str, Any]]
