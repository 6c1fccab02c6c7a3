"""Finished latents on disk, one file per clip, so that an interrupted run can go on.

    work.json                        what the run is: every setting, model and condition
    video-000000/predict-000003.npy  latents of one clip, (c, t, h, w) float32, and their sha256

A file appears whole or not at all. Knows nothing of networks or video files.
"""

import hashlib
import io
import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any, Self

import numpy as np
from numpy.lib.format import read_array, write_array
from numpy.typing import NDArray

from lvdm_engines import lock
from lvdm_engines.atomic import read_file, remove_leftovers, sync_directory, whole_file
from lvdm_engines.errors import OtherRunError, WorkError, cause, quoted
from lvdm_rt.diffusion.noise import Site, Stage

_log = logging.getLogger(__name__)

IDENTITY = "work.json"
_NAME = rf"({'|'.join(map(str, Stage))})-\d+\.npy"
_CLIP = re.compile(rf"{_NAME}|\.{_NAME}\.\w{{8}}\.partial")
_VIDEO = re.compile(r"video-\d+")
# what a header that is no array's ends in
_FAULTS = (ValueError, SyntaxError, TokenError, TypeError, EOFError, MemoryError)
_CHECKSUM = hashlib.sha256().digest_size  # bytes, after the array, where NumPy does not look


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
        if path.is_symlink():
            raise WorkError(f"{path} is a link, where clips are kept; remove it")
        try:
            self._lock = lock.made_and_locked(path)
        except BlockingIOError as err:
            raise OtherRunError(f"{path} is in use by another run; wait for it or stop it") from err
        except OSError as err:
            raise _unwritable(path, err) from err
        try:
            if restart:
                _refuse_strangers(path)
                _clear(path)
            self._claim(identity, resume)
        except OtherRunError:
            lock.release(self._lock)
            raise
        except BaseException:
            with suppress(WorkError):  # the error that is told came first
                _release(self._lock, path, remove=not holds_clips(path))
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # nothing that a later run would have to resume
        useless = error is not None and not holds_clips(self._path)
        _release(self._lock, self._path, remove=useless)

    def load(self, site: Site, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Return the latents of a finished clip, None if it is not there or damaged."""
        file = self._file(site)
        try:
            latents = read_array(io.BytesIO(_checked(read_file(file))))
        except FileNotFoundError:
            return None
        except OSError as err:
            _log.warning("%s cannot be read (%s) and is made again", file, err.strerror or err)
            return None
        except _FAULTS as err:
            _log.warning("%s is damaged (%s) and is made again", file, err)
            return None
        if latents.shape != shape or latents.dtype != np.float32 or not np.isfinite(latents).all():
            _log.warning("%s does not hold latents %s and is made again", file, shape)
            return None
        return np.asarray(latents)

    def save(self, site: Site, latents: NDArray[np.float32]) -> None:
        """Store a finished clip, durably. Raises WorkError, e.g. if the disk is full."""
        file, data = self._file(site), io.BytesIO()
        write_array(data, latents)
        try:
            if not file.parent.is_dir():
                file.parent.mkdir()
                sync_directory(self._path)
            with whole_file(file) as out:
                out.write(data.getvalue() + hashlib.sha256(data.getvalue()).digest())
        except OSError as err:
            raise _unwritable(file, err) from err

    def _file(self, site: Site) -> Path:
        folder = self._path / f"video-{site.video:06d}"
        if folder.is_symlink():
            raise WorkError(f"{folder} is a link, where clips are kept; remove it")
        return folder / f"{site.stage}-{site.clip:06d}.npy"

    def _claim(self, identity: Mapping[str, Any], resume: bool) -> None:
        file = self._path / IDENTITY
        wanted = json.loads(json.dumps(identity))
        if not file.exists():
            remove_leftovers(file, mine=True)
            _refuse_strangers(self._path, ours=False)
            try:
                with whole_file(file) as out:
                    out.write(json.dumps(wanted, indent=1).encode())
                sync_directory(self._path.parent)
            except OSError as err:
                raise _unwritable(file, err) from err
            return
        try:
            found = _read_identity(self._path)
        except OSError as err:
            raise OtherRunError(
                f"{file} cannot be read: {cause(err, '--restart throws the run away')}"
            ) from err
        except (ValueError, RecursionError) as err:
            raise OtherRunError(
                f"{file} cannot be read ({err}); --restart throws the run away"
            ) from err
        _compare(self._path, found, wanted)
        if not resume:
            raise OtherRunError(
                f"{self._path} holds an interrupted run of these settings; --resume goes on with "
                "it, --restart throws it away"
            )


class WorkDirs:
    """Work directories of several videos, one each: any batch with a video goes on with it."""

    def __init__(self, folders: Sequence[WorkDir]) -> None:
        """Keep the clips of each video in its own directory, as if it were made alone."""
        self._folders = folders

    def load(self, site: Site, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """Return the latents of a finished clip, None if it is not there or damaged."""
        return self._folders[site.video].load(site._replace(video=0), shape)

    def save(self, site: Site, latents: NDArray[np.float32]) -> None:
        """Store a finished clip, durably. Raises WorkError."""
        self._folders[site.video].save(site._replace(video=0), latents)


def work_path(out: str) -> Path | None:
    """Return the directory of finished latents: `.sky.mp4.work` beside `sky.mp4`; none for `-`."""
    return None if out == "-" else Path(out).with_name(f".{Path(out).name}.work")


def holds_clips(work: Path | None) -> bool:
    """Tell whether a work directory holds anything that is worth resuming from."""
    return work is not None and any(work.glob("video-*/*.npy"))


def belongs_to(path: Path, identity: Mapping[str, Any]) -> bool:
    """Tell whether a directory is the work directory of this run."""
    try:
        found = _read_identity(path)
    except (OSError, ValueError, RecursionError):
        return False
    return bool(found == json.loads(json.dumps(identity)))


def _read_identity(path: Path) -> dict[str, Any]:
    """Read what run a work directory is of. Raises OSError, ValueError, RecursionError."""
    found = json.loads(read_file(path / IDENTITY))
    if isinstance(found, dict):
        return found
    raise ValueError("it holds no settings")


def remove(path: Path) -> None:
    """Delete a work directory that nobody uses: its own files, and directories that are then empty.

    Raises WorkError if something cannot be deleted.
    """
    try:
        holder = lock.acquire(path)
    except OSError:  # it is gone, or another run has begun in it
        return
    _release(holder, path, remove=True)
    with suppress(OSError):
        sync_directory(path.parent)


def _release(holder: int, path: Path, *, remove: bool) -> None:
    """Unlock a directory, which nobody else may have in between where it is removed."""
    try:
        if remove:
            _clear(path)
    finally:
        lock.release(holder, path if remove else None)


def _checked(data: bytes) -> bytes:
    """Return what stands before its checksum. Raises ValueError if that differs."""
    content, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if hashlib.sha256(content).digest() != checksum:
        raise ValueError("its checksum differs")
    return content


def _refuse_strangers(path: Path, *, ours: bool = True) -> None:
    """Raise OtherRunError for anything that no run left; for everything unless some is `ours`."""
    for entry in path.iterdir():
        known = entry.name == IDENTITY or entry.name.startswith(f".{IDENTITY}.")
        if _VIDEO.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
            known = all(_CLIP.fullmatch(file.name) for file in entry.iterdir())
        if entry.name != lock.LOCK_FILE and not (ours and known):
            raise OtherRunError(
                f"{path} is not a work directory (it holds {entry.name}); choose another or empty "
                "it"
            )


def _clear(path: Path) -> None:
    try:
        for folder in path.glob("video-*"):
            if not _VIDEO.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
                continue
            for file in folder.iterdir():
                if _CLIP.fullmatch(file.name):
                    file.unlink()
            with suppress(OSError):  # holds something that is not ours
                folder.rmdir()
        remove_leftovers(path / IDENTITY, mine=True)
        (path / IDENTITY).unlink(missing_ok=True)
    except OSError as err:
        raise WorkError(f"{path} cannot be removed: {cause(err, 'remove it by hand')}") from err


def _compare(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        before, now = found.get(name), wanted.get(name)
        if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            names = [f"{name}[{number}]" for number in range(len(now))]
            _compare(
                path, dict(zip(names, before, strict=True)), dict(zip(names, now, strict=True))
            )
        elif before != now:
            raise OtherRunError(
                f"{path} holds an interrupted run with {name} {quoted(before)}, now it is "
                f"{quoted(now)}; use the same and --resume, or throw it away with --restart"
            )


def _unwritable(path: Path, err: OSError) -> WorkError:
    return WorkError(f"{path} cannot be written: {cause(err, 'choose another place')}")
