"""Finished latents on disk, one file per clip, so that an interrupted run can go on.

    work.json                        what the run is: every setting, model and condition
    video-000000/predict-000003.npy  latents of one clip, (c, t, h, w) float32

A file appears whole or not at all. Knows nothing of networks or video files.
"""

import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import OtherRunError, WorkError
from lvdm_rt.diffusion.noise import Site
from lvdm_rt.long import lock

_log = logging.getLogger(__name__)

IDENTITY = "work.json"
_CLIP = re.compile(r"\.?(predict|infill|short)-\d+\.npy(\.part)?")
_VIDEO = re.compile(r"video-\d+")


class WorkDir:
    """The work directory of one run, locked while it is open.

    Left by an exception before the first clip is finished, it is removed.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], *, resume: bool, restart: bool = False
    ) -> None:
        """Start a run in `path`, or continue the one that was interrupted there.

        `identity` (JSON values) is everything that the latents depend on. `restart` throws away
        what an interrupted run left.

        Raises OtherRunError if the directory holds another run, or this one without `resume`, or
        if it is in use; WorkError if it cannot be written.
        """
        self._path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = lock.acquire(path)
        except BlockingIOError as err:
            raise OtherRunError(f"{path} is in use by another run; wait for it or stop it") from err
        except OSError as err:
            raise _unwritable(path, err) from err
        try:
            if restart:
                _clear(path)
            self._claim(identity, resume)
        except BaseException:
            lock.release(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None and not holds_clips(self._path):
                remove(self._path)  # nothing that a later run would have to resume
        finally:
            lock.release(self._lock)

    def load(self, site: Site, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Return the latents of a finished clip, None if it is not there or damaged."""
        file = self._file(site)
        try:
            latents = np.load(file, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as err:
            _log.warning("%s is damaged (%s) and is made again", file, err)
            return None
        if latents.shape != shape or latents.dtype != np.float32 or not np.isfinite(latents).all():
            _log.warning("%s does not hold latents %s and is made again", file, shape)
            return None
        return np.asarray(latents)

    def save(self, site: Site, latents: NDArray[np.float32]) -> None:
        """Store a finished clip, durably. Raises WorkError, e.g. if the disk is full."""
        file = self._file(site)
        part = file.with_name(f".{file.name}.part")
        try:
            file.parent.mkdir(exist_ok=True)
            with part.open("wb") as out:
                np.save(out, latents)
                out.flush()
                os.fsync(out.fileno())
            part.replace(file)
        except OSError as err:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise _unwritable(file, err) from err

    def _file(self, site: Site) -> Path:
        return self._path / f"video-{site.video:06d}" / f"{site.stage}-{site.clip:06d}.npy"

    def _claim(self, identity: Mapping[str, Any], resume: bool) -> None:
        file = self._path / IDENTITY
        wanted = json.loads(json.dumps(identity))
        if not file.exists():
            ours = {f".{IDENTITY}.part", lock.LOCK_FILE}
            strangers = [e.name for e in self._path.iterdir() if e.name not in ours]
            if strangers:
                raise OtherRunError(
                    f"{self._path} is not a work directory (it holds {strangers[0]}); "
                    "choose another or empty it"
                )
            self._write_identity(file, wanted)
            return
        _compare(self._path, self._read_identity(file), wanted)
        if not resume:
            raise OtherRunError(
                f"{self._path} holds an interrupted run of these settings; --resume goes on with "
                "it, --restart throws it away"
            )

    def _write_identity(self, file: Path, identity: Mapping[str, Any]) -> None:
        part = file.with_name(f".{file.name}.part")
        try:
            with part.open("w", encoding="utf-8") as out:
                json.dump(identity, out, indent=1)
                out.flush()
                os.fsync(out.fileno())
            part.replace(file)
        except OSError as err:
            raise _unwritable(file, err) from err

    def _read_identity(self, file: Path) -> dict[str, Any]:
        try:
            found = json.loads(file.read_bytes())
        except (OSError, ValueError) as err:
            raise OtherRunError(
                f"{file} cannot be read ({err}); --restart throws the run away"
            ) from err
        if not isinstance(found, dict):
            raise OtherRunError(f"{file} is damaged; --restart throws the run away")
        return found


def work_path(out: str) -> Path | None:
    """Return the directory of finished latents: `.sky.mp4.work` beside `sky.mp4`; none for `-`."""
    return None if out == "-" else Path(out).with_name(f".{Path(out).name}.work")


def holds_clips(work: Path | None) -> bool:
    """Tell whether a work directory holds anything that is worth resuming from."""
    return work is not None and any(work.glob("video-*/*.npy"))


def remove(path: Path) -> None:
    """Delete a work directory: its own files, and directories that are then empty.

    Raises WorkError if something cannot be deleted.
    """
    _clear(path)
    with suppress(OSError):  # holds something that is not ours, or is locked
        if lock.LOCK_FILE:
            (path / lock.LOCK_FILE).unlink(missing_ok=True)
        path.rmdir()


def _clear(path: Path) -> None:
    try:
        for folder in path.glob("video-*"):
            if not _VIDEO.fullmatch(folder.name) or not folder.is_dir():
                continue
            for file in folder.iterdir():
                if _CLIP.fullmatch(file.name):
                    file.unlink()
            with suppress(OSError):  # holds something that is not ours
                folder.rmdir()
        for name in (IDENTITY, f".{IDENTITY}.part"):
            (path / name).unlink(missing_ok=True)
    except OSError as err:
        raise WorkError(f"{path} cannot be removed ({err.strerror}); remove it by hand") from err


def _compare(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise OtherRunError(
                f"{path} holds an interrupted run with {name} {found.get(name)!r}, now it is "
                f"{wanted.get(name)!r}; use the same and --resume, or throw it away with --restart"
            )


def _unwritable(path: Path, err: OSError) -> WorkError:
    return WorkError(
        f"{path} cannot be written ({err.strerror}); free some space or choose another place"
    )
