"""The files of a job: their names, what may be replaced, and the writers of videos in flight."""

import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from lvdm_engines.atomic import is_taken
from lvdm_engines.errors import OptionsError, VideoError
from lvdm_rt.commands.described import Described
from lvdm_rt.pipeline import Chunk
from lvdm_rt.video import (
    VideoSpec,
    VideoWriter,
    check_output,
    is_finished,
    open_writer,
    read_sidecar,
    sidecar_path,
)

_OTHER_FILES = 64  # that a process has open: graphs, libraries, the condition
_OUR_PICTURE = re.compile(r"\d{6,}\.png")


@dataclass
class Outputs:
    """The writers of the videos in flight. Leaving it early removes what is not whole."""

    names: list[str]
    job: Described
    stdout: BinaryIO | None
    resume: bool
    force: bool
    _open: dict[int, VideoWriter | None] = field(default_factory=dict)
    _closed: set[int] = field(default_factory=set)
    _finished: dict[int, bool] = field(default_factory=dict)

    @property
    def all_done(self) -> bool:
        """Whether an interrupted run has finished every video."""
        return all(self._done(index) for index in range(len(self.names)))

    def check(self) -> None:
        """Raise now for a place, a size or a rate that would fail after minutes of sampling."""
        check_open_files(min(len(self.names), self.job.settings["batch_size"]))
        for index, name in enumerate(self.names):
            if self._done(index):
                continue
            if name != "-":
                check_free(Path(name), self._settings(index), force=self.force)
            check_output(name, self._spec(index), replace=self.force)

    def write(self, chunk: Chunk) -> None:
        """Append frames to their video; its last frames close it."""
        index = chunk.video - self.job.first_video
        if index not in self._open:
            self._open[index] = None if self._done(index) else self._begun(index)
        writer = self._open[index]
        if writer is not None:
            writer.write(chunk.frames)
        if chunk.start + len(chunk.frames) >= self.job.frames:
            if writer is not None:
                if self.names[index] != "-":  # something may have come there meanwhile
                    path, settings = Path(self.names[index]), self._settings(index)
                    try:
                        check_free(path, settings, force=self.force)
                    except OptionsError as err:
                        raise VideoError(f"meanwhile it was taken: {err}") from err
                writer.close()
            del self._open[index]
            self._closed.add(index)

    def finish(self) -> None:
        """Make sure that every video is there. Raises VideoError."""
        missing = [name for k, name in enumerate(self.names) if k not in self._closed]
        if missing:
            raise VideoError(
                f"{missing[0]} got fewer frames than were asked for; check the bundle with "
                "lvdm-export verify"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._open.values():
            if writer is not None:
                writer.abort()

    def _begun(self, index: int) -> VideoWriter:
        """Open a writer and put the given frames first, where they are joined."""
        name, spec = self.names[index], self._spec(index)
        writer = open_writer(name, spec, self.stdout, replace=self.force)
        try:
            for frames in self.job.joined():
                writer.write(frames)
        except BaseException:
            writer.abort()
            raise
        return writer

    def _spec(self, index: int) -> VideoSpec:
        return self.job.spec(json.dumps(self._settings(index)))

    def _settings(self, index: int) -> dict[str, Any]:
        return self.job.settings_of(index)

    def _done(self, index: int) -> bool:
        """Whether an interrupted run of the same settings has finished this video."""
        name = self.names[index]
        if not self.resume or name == "-":
            return False
        if index not in self._finished:
            self._finished[index] = is_finished(Path(name), self._settings(index))
        return self._finished[index]


def check_open_files(videos: int) -> None:
    """Refuse more videos in flight than files may be open. Raises OptionsError."""
    if sys.platform == "win32":  # has no such limit
        return
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if videos + _OTHER_FILES > most != resource.RLIM_INFINITY:
        raise OptionsError(
            f"{videos} videos are written at once, but this process may open {most} files; lower "
            f"--batch-size, or raise the limit to {videos + _OTHER_FILES} (ulimit -n)"
        )


def check_free(path: Path, settings: dict[str, Any], *, force: bool) -> None:
    """Refuse to replace what is there, and with `force` what this program did not make.

    The settings of a video that has been moved away go with `force` only; those of this one may
    have been left by a kill. Raises OptionsError.
    """
    sidecar, told = sidecar_path(path), settings_beside(path, "lvdm_rt")
    if path.is_dir():
        strangers = [
            entry.name
            for entry in path.iterdir()
            if not (_OUR_PICTURE.fullmatch(entry.name) and entry.is_file())
        ]
        if strangers:
            raise OptionsError(
                f"cannot write frames to {path}: it holds {strangers[0]}, which is no frame; "
                "choose another name"
            )
        if any(path.iterdir()) and not told:
            raise OptionsError(
                f"cannot write frames to {path}: it holds pictures that are not of this program "
                f"(there is no {sidecar.name} beside it); choose another name"
            )
    told.pop("file", None)
    if force:
        return
    refuse_existing(path)
    if told not in ({}, settings):
        raise OptionsError(
            f"cannot write {path}: {sidecar} exists and tells of another video; --force replaces "
            "it, or choose another name"
        )


def settings_beside(path: Path, *marks: str) -> dict[str, Any]:
    """Return the settings of the video that is or was at `path`; none if there is no sidecar.

    Raises OptionsError for a sidecar without one of `marks`, keys of what this program writes.
    """
    sidecar, told = sidecar_path(path), read_sidecar(path) or {}
    if sidecar.exists() and not told.keys() & set(marks):
        raise OptionsError(
            f"cannot write {path}: {sidecar} exists and holds no settings of a video; move it away "
            "or choose another name"
        )
    return told


def refuse_input(out: str, inputs: Iterable[str | Path]) -> None:
    """Refuse to write over what is read, or into a folder around it. Raises OptionsError."""
    for path in inputs:
        given = Path(os.path.realpath(path))  # of a link to itself as well, which ends Path.resolve
        if out != "-" and Path(os.path.realpath(out)) in (given, *given.parents):
            raise OptionsError(f"{out} is or holds what is read; choose another OUT")


def refuse_existing(path: Path) -> None:
    """Raise OptionsError for a file, or a directory that is not empty."""
    if is_taken(path):
        raise OptionsError(
            f"cannot write {path}: it exists; --force replaces it, or choose another name"
        )


def output_names(out: str, videos: int) -> list[str]:
    """Return where each video goes.

    One video goes to `out` itself, several to `sky-000.mp4`, `sky-001.mp4` and so on.
    Raises OptionsError for several videos to standard output.
    """
    if videos == 1:
        return [out]
    if out == "-":
        raise OptionsError(f"{videos} videos cannot share standard output; give a file name")
    path = Path(out)
    digits = max(3, len(str(videos - 1)))
    slash = "/" if out.endswith("/") or path.is_dir() else ""
    return [
        f"{path.with_name(f'{path.stem}-{k:0{digits}d}{path.suffix}')}{slash}"
        for k in range(videos)
    ]
