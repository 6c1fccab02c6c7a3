"""Files of a run: one atomic safetensors file holds everything that a resumed run needs.

RUN/config.json         what was asked, to compare with on --resume
RUN/state.safetensors   the last good checkpoint: weights, optimizer, averages, step
RUN/log.jsonl           one line per log interval
RUN/curves.png  RUN/samples/  RUN/model/
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from lvdm_engines import lock
from lvdm_engines.atomic import remove_leftovers, whole_path
from lvdm_engines.errors import (
    CheckpointError,
    ConfigError,
    TrainingError,
    cause,
    one_line,
)
from lvdm_tools.train import config
from lvdm_tools.train.same import check_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    Report = Callable[[Mapping[str, Any]], None]  # told every line of the log

_META = "lvdm_tools.run"
_DIGEST = "start_from_sha256"
_EXTRA = (
    "source",
    "autoencoder_sha256",
    "frozen_sha256",
    _DIGEST,
)  # recorded beside the config's own fields
_NEW = "restore it from a copy, or train into a new folder"

# what a file that is not as it was written makes its readers raise
_DAMAGE = (
    OSError, SafetensorError, ConfigError, msgspec.MsgspecError, ValueError, TypeError, LookupError,
    AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip


@contextmanager
def reading(path: Path, todo: str = _NEW) -> Iterator[None]:
    """Turn whatever a damaged file makes its readers raise into one line.

    Raises CheckpointError: naming the file and what is wrong with it, with `todo`.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # which would be waited for
            raise OSError(errno.EINVAL, "it is no ordinary file")
        yield
    except _DAMAGE as err:
        told = getattr(err, "strerror", None) or f"{err}".removeprefix(f"{path}: ")
        reason = f"it lacks {told}" if isinstance(err, KeyError) else told
        raise CheckpointError(
            f"{path} cannot be read ({one_line(reason, 300)}): it is damaged or not of this "
            f"version; {todo}"
        ) from err


def save(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to `path`, whole or not at all.

    Raises TrainingError: the disk is full or the folder cannot be written.
    """
    header = {_META: json.dumps(meta)}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, lambda draft: save_file(contiguous, draft, metadata=header))


def write_whole(path: Path, write: Callable[[Path], object], *, again: str = "--resume") -> None:
    """Let `write` fill a draft beside `path`, then rename it; on failure nothing is left behind.

    Raises TrainingError: the disk is full or the folder cannot be written.
    """
    try:
        remove_leftovers(path, mine=True)
        with whole_path(path) as draft:
            write(draft)
    except (OSError, SafetensorError) as err:
        raise write_error(err, path, again=again) from err


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote: tensors on the CPU and the header.

    Raises CheckpointError: missing, truncated or foreign file.
    """
    header = read_header(path)
    with reading(path):
        return load_file(path), header


def read_header(path: Path) -> dict[str, Any]:
    """Read the JSON header only.

    Raises CheckpointError: missing, truncated or foreign file.
    """
    with reading(path), safe_open(path, framework="pt") as file:
        return msgspec.convert(json.loads((file.metadata() or {})[_META]), dict[str, Any])


def tensor(
    tensors: Mapping[str, Tensor], name: str, shape: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """Return one of the tensors of a file.

    Raises KeyError: it is missing; ValueError: another shape or type, NaN or infinity.
    """
    stored = tensors[name]
    got, expected = (tuple(stored.shape), stored.dtype), (tuple(shape), dtype)
    if got != expected:
        raise ValueError(f"{name} is {got}, expected {expected}")
    if not bool(torch.isfinite(stored).all()):
        raise ValueError(f"{name} holds NaN or infinity")
    return stored


def write_error(err: Exception, path: Path, *, again: str = "--resume") -> TrainingError:
    """Say why `path` could not be written, what is left, and what to do before going on."""
    reason, _, todo = cause(err, "make it writable").partition("; ")
    # safetensors reports I/O errors as text only
    if getattr(err, "errno", None) == errno.ENOSPC or "No space left" in str(err):
        reason, todo = "the disk is full", "make room"
    kept = "what was there is kept" if path.exists() else "nothing was written"
    return TrainingError(f"{reason} while writing {path}; {kept}: {todo}, then {again}")


@dataclass(frozen=True)
class Workspace:
    """The folder of one run."""

    root: Path

    @property
    def state(self) -> Path:
        """The last good checkpoint."""
        return self.root / "state.safetensors"

    @property
    def has_state(self) -> bool:
        """Whether there is a checkpoint, readable or not."""
        return os.path.lexists(self.state)

    @property
    def model(self) -> Path:
        """The folder of the model that is exported with every checkpoint."""
        return self.root / "model"

    @property
    def log(self) -> Path:
        """Numbers per log interval, one JSON object a line."""
        return self.root / "log.jsonl"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder, which is made if need be, from every other run.

        Raises TrainingError: it is in use, or cannot be made.
        """
        there = self.root.exists()
        try:
            holder = lock.made_and_locked(self.root)
        except BlockingIOError as err:
            raise TrainingError(
                f"{self.root} is in use by another run: wait for it or stop it"
            ) from err
        except OSError as err:
            raise TrainingError(f"cannot create {self.root}: {cause(err)}") from err
        try:
            yield
        finally:
            lock.release(holder, None if there else self.root)  # which goes if nothing came of it

    def open(self, identity: dict[str, Any], *, resume: bool) -> None:
        """Start the folder, or check that a resumed run asks for what it was started with.

        Raises TrainingError: the folder holds a run already, none to resume, or another config.
        """
        record = self.root / "config.json"
        there = os.path.lexists(record)
        if self.has_state and not there:
            raise TrainingError(
                f"{self.root} holds a checkpoint, but not the {record.name} that says of what: "
                f"{_NEW}"
            )
        if resume:
            if not there:
                raise TrainingError(
                    f"{self.root} holds no run to resume: start it without --resume"
                )
            check_same(identity, self._started_with(record), self.root)
        elif there:
            raise TrainingError(
                f"{self.root} already holds a run: pass --resume to go on, or choose another --out"
            )
        elif strangers := self._strangers():
            raise TrainingError(
                f"{self.root} holds {strangers[0]}, but no run: choose another --out"
            )
        try:
            (self.root / "samples").mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise TrainingError(f"cannot create {self.root}: {cause(err)}") from err
        text = json.dumps(identity, indent=1)
        again = "--resume" if resume else "start again"
        write_whole(record, lambda draft: draft.write_text(text, encoding="utf-8"), again=again)

    def _strangers(self) -> list[str]:
        """Return what is in the folder of a run that has not begun, not even to be killed."""
        found = self.root.iterdir() if self.root.is_dir() else ()
        return sorted(e.name for e in found if e.name != "samples" and not e.name.startswith("."))

    def started_from(self) -> dict[str, Any]:
        """Return what was recorded of the weights that the run began with: folder and digest."""
        record = self.root / "config.json"
        stored = self._started_with(record) if os.path.lexists(record) else {}
        return {name: stored[name] for name in ("start_from", _DIGEST) if name in stored}

    def _started_with(self, record: Path) -> dict[str, Any]:
        with reading(record):
            stored = json.loads(record.read_text(encoding="utf-8"))
            extra = {name: stored.pop(name) for name in _EXTRA if name in stored}
            # parsed again, so that settings added since then show their defaults
            run = config.parse(stored, stored["kind"], str(record))
            return config.to_plain(run) | msgspec.convert(extra, dict[str, str | None])

    def rewind_log(self, step: int) -> None:
        """Drop log lines after `step`: the resumed run writes them again."""
        if self.log.exists():
            kept = "".join(
                json.dumps(line) + "\n" for line in self.history() if line["step"] <= step
            )
            write_whole(self.log, lambda draft: draft.write_text(kept, encoding="utf-8"))

    def append_log(self, record: Mapping[str, Any]) -> None:
        """Add one line to the log."""
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as err:
            raise write_error(err, self.log) from err

    def history(self) -> list[dict[str, Any]]:
        """Read the log, if there is one yet; a line cut short by a kill, or damaged, is skipped.

        Raises CheckpointError: it is not a file, or not readable.
        """
        if not self.log.exists():
            return []
        with reading(self.log, "move it away, then --resume"):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [record for record in map(_record, lines) if "step" in record]


def _record(line: str) -> dict[str, int | float]:
    try:
        return msgspec.convert(json.loads(line), dict[str, int | float])
    except _DAMAGE:
        return {}
