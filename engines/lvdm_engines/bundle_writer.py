"""Writing bundles: beside the target, checked, and put in place in one step or not at all."""

import ctypes
import errno
import glob
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from lvdm_engines.bundle import MANIFEST, REFERENCES, Bundle, GraphSource, load_bundle
from lvdm_engines.contract import check_contract
from lvdm_engines.errors import BundleError, quoted
from lvdm_engines.manifest import Manifest
from lvdm_engines.manifest_json import format_manifest, parse_manifest

_log = logging.getLogger(__name__)

CARD = "README.md"  # what people say of a model; not read
_PLAN_FILE = re.compile(r"engines/[^/]+/[^/]+\.(plan|json|kernels)(\.partial)?")
_LEFT_FOR = 24 * 3600  # seconds
_WINDOWS = os.name == "nt"


class BundleWriter:
    """A directory under construction: write graph files into `path`, then call `finish`.

    Leaving the context without `finish`, by an error or an interrupt, removes everything and
    leaves the target as it was. An existing target is refused unless `force`; then it stays until
    the new bundle is complete, and only a bundle or an empty directory is ever replaced.
    """

    def __init__(self, target: str | Path, *, force: bool = False) -> None:
        self.target = Path(target).absolute()
        self.path = partial_of(self.target)
        self._force = force

    def __enter__(self) -> Self:
        _check_target(self.target, force=self._force)
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.target)
            self.path.mkdir()
        except OSError as err:
            raise _write_error(self.target, err) from err
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        finished = not self.path.exists()
        shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, OSError) and self._concerns_us(error):
            raise _write_error(self.target, error) from error
        if error is None and not finished:
            raise BundleError(f"{self.target}: nothing was written, finish() was not called")

    def _concerns_us(self, error: OSError) -> bool:
        """Tell a failed write of this bundle from, say, an input that could not be read."""
        ours = str(error.filename or "").startswith(str(self.path))
        return ours or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

    def record(self, references: Mapping[str, Any]) -> None:
        """Keep what the original network answered, by graph, in a file of its own."""
        (self.path / REFERENCES).write_bytes(msgspec.json.encode(references) + b"\n")

    def finish(self, manifest: Manifest) -> Bundle:
        """Check the files against the manifest, write it, and put the bundle in place.

        Raises BundleError for a manifest that does not fit its model or its files.
        """
        data = format_manifest(manifest)
        check_contract(manifest, f"manifest of {quoted(manifest.name)}")
        for name, facts in manifest.graphs.items():
            GraphSource(name, facts, self.path).verified()
        (self.path / MANIFEST).write_bytes(data)
        sync_tree(self.path)
        _check_target(self.target, force=self._force)
        put_in_place(self.path, self.target)
        return load_bundle(self.target)


def _check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that exists, or that `force` should not replace either."""
    if not os.path.lexists(target):
        return
    if not force:
        raise BundleError(f"{target}: already exists; choose another directory or pass --force")
    if target.is_symlink() or not target.is_dir():
        raise BundleError(
            f"{target}: exists and is not a bundle, so it is not replaced; choose another directory"
        )
    strangers = _strangers(target)
    if strangers:
        some = ", ".join([*strangers[:3], *(["more"] if strangers[3:] else [])])
        raise BundleError(
            f"{target}: holds {some}, not of a bundle, so it is not replaced; move that away or "
            "choose another directory"
        )


def _strangers(folder: Path) -> list[str]:
    """Return what lies in a directory and is no part of a bundle; everything, if it is none."""
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    try:
        manifest = parse_manifest((folder / MANIFEST).read_bytes())
    except (BundleError, OSError):
        return names
    known = {MANIFEST, REFERENCES, CARD}
    for graph in manifest.graphs.values():
        known |= graph.files.keys()
    return [name for name in names if name not in known and not _PLAN_FILE.fullmatch(name)]


def partial_of(target: Path) -> Path:
    """Return a new hidden name beside `target`, where it is made until it is whole."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")


def remove_leftovers(target: Path) -> None:
    """Remove what killed processes left beside `target`: hidden, and not touched for a day."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.????????.partial"):
        with suppress(OSError):  # somebody else removes it
            times = [path.lstat().st_mtime for path in (left, *left.rglob("*"))]
            if max(times) < time.time() - _LEFT_FOR:
                _log.info("%s: removed, a killed build left it", left)
                shutil.rmtree(left)


def put_in_place(new: Path, target: Path) -> None:
    """Rename the directory `new` to `target`; what stood there goes once the new one stands."""
    if not target.exists():
        new.rename(target)
        sync_directory(target.parent)
        return
    old = new
    if not _exchange(new, target):  # then two renames, undone if the second fails
        old = new.with_suffix(".old")
        target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            old.rename(target)
            raise
    sync_directory(target.parent)
    _log.info("%s: replaced what was there", target)
    shutil.rmtree(old)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    rename = None if _WINDOWS else getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0)


def sync_tree(folder: Path) -> None:
    """Wait until a directory and all files in it are on the disk. Raises OSError."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:  # Windows syncs no file that is open to be read
                os.fsync(file.fileno())
    sync_directory(folder)


def sync_directory(folder: Path) -> None:
    """Wait until the names in a directory are on the disk. Raises OSError."""
    if _WINDOWS:  # which has no such thing
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_error(target: Path, err: OSError) -> BundleError:
    return BundleError(
        f"{target}: cannot be written ({err.strerror or err}); "
        "free space there or choose another directory"
    )
