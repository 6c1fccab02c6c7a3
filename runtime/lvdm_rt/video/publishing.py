"""How a video and its sidecar get their names: together, once both are whole and on the disk.

Knows names and files; nothing of frames or formats.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from lvdm_engines import lock
from lvdm_engines.atomic import (
    is_taken,
    partial_of,
    put_in_place,
    remove,
    remove_leftovers,
    sync,
    sync_directory,
)
from lvdm_engines.errors import VideoError, cause
from lvdm_rt.video.sidecar import file_facts, sidecar_path, write_sidecar


class HiddenFiles:
    """A video and its sidecar: hidden, under random names, until both are whole."""

    def __init__(self, path: Path, *, replace: bool) -> None:
        """Choose names beside `path`, the final name of the video."""
        self._path, self._sidecar, self._replace = path, sidecar_path(path), replace
        self.video, self._settings = partial_of(path), partial_of(self._sidecar)
        self._holder: int | None = None

    def hold(self) -> None:
        """Lock what is being written, so that nobody takes it for what a killed process left."""
        if sys.platform != "win32":  # where nobody can remove an open file
            self._holder = lock.acquire(self.video)

    def publish(self, settings: str) -> None:
        """Rename both, in an order that a run killed in between can resume from.

        A new video comes last: a sidecar alone announces nothing, but frames in a directory without
        one would be somebody else's. One that is replaced comes first: the new sidecar must not
        describe the old video.
        """
        sync(self.video)
        renamed = [(self.video, self._path)]
        if settings:
            write_sidecar(self._settings, settings, self.video)
            renamed.insert(int(is_taken(self._path)), (self._settings, self._sidecar))
        for hidden, name in renamed:
            if name.is_dir() and self._replace:
                put_in_place(hidden, name)
                continue
            if name.is_dir():
                name.rmdir()  # empty, or it would have been refused
            hidden.replace(name)
        sync_directory(self._path.parent)
        self._release()

    def _release(self) -> None:
        if self._holder is not None:
            lock.release(self._holder)
            self._holder = None

    def remove(self) -> None:
        """Remove what is not published."""
        self._release()
        remove(self.video)
        remove(self._settings)


def read_video(path: Path) -> dict[str, bytes]:
    """Return a finished video and its sidecar, to be placed elsewhere by `place_video`.

    The sidecar is named "", a file that is the video "." and pictures of a directory as they are.
    Raises OSError.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    content = {"." if file == path else file.name: file.read_bytes() for file in files}
    return {"": sidecar_path(path).read_bytes(), **content}


def place_video(path: Path, content: Mapping[str, bytes], *, replace: bool) -> None:
    """Give a video that was made elsewhere its name, whole or not at all.

    Raises VideoError if the place cannot be written, or if it is not what its sidecar tells.
    """
    settings = json.loads(content[""])
    facts = settings.pop("file")
    try:
        for name in (path, sidecar_path(path)):
            remove_leftovers(name)
        files = HiddenFiles(path, replace=replace)
        try:
            _write_hidden(files.video, content)
            _check_facts(path, files.video, facts)
            files.hold()
            files.publish(json.dumps(settings))
        except BaseException:
            files.remove()
            raise
    except OSError as err:
        raise VideoError(f"cannot write {path}: {cause(err, otherwise='')}") from err


def _write_hidden(video: Path, content: Mapping[str, bytes]) -> None:
    if "." not in content:
        video.mkdir()
    for name, data in content.items():
        if name:
            with (video if name == "." else video / name).open("xb") as out:
                out.write(data)


def _check_facts(path: Path, video: Path, facts: object) -> None:
    if file_facts(video) != facts:
        raise VideoError(f"{path} did not come as it was sent; run it again")
