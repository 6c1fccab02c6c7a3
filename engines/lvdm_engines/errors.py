"""The exception tree: everything a caller can do something about is an `LvdmError`.

    LvdmError
    ├── BundleError          damaged, incomplete or unknown bundle
    ├── CheckpointError      a training checkpoint that cannot be read
    ├── ConfigError          a model configuration that cannot be used
    ├── ExportError          a graph that could not be exported
    ├── BackendError         a backend that cannot run here
    ├── SessionError         wrong feeds, or a run that failed
    │   └── DeviceMemoryError    out of memory; a smaller batch may work
    ├── NumericsError        NaN or infinity in a result
    ├── OptionsError         a request that contradicts itself or the model
    ├── PlanError            a length or mode that no plan can satisfy
    ├── VideoError           a video that cannot be read or written
    ├── WorkError            a work directory that cannot be used
    │   └── OtherRunError        it is in use, or holds another run's clips
    ├── ClusterError         a cluster that cannot be reached, or has no room or no worker left
    └── TrainingError        a training run that cannot start or go on

A message is one line: what was got, what was expected, what to do next. Whatever came from a
file or a caller stands in it as `quoted` shows it: short, and without control characters.
"""

import errno
import reprlib

KEPT = "finished clips are kept"  # the note of an error after which a run can be resumed
_LONGEST = 2000  # characters of a message


class LvdmError(Exception):
    """Anything that went wrong in a way that the message explains."""

    def __init__(self, message: object = "") -> None:
        """Keep the message as one printable line."""
        super().__init__(one_line(str(message)))


class BundleError(LvdmError):
    """A bundle is damaged, incomplete, unknown or newer than this library."""


class CheckpointError(LvdmError):
    """A checkpoint cannot be read, or does not hold what the model needs."""


class ConfigError(LvdmError):
    """A model configuration is malformed or not supported."""


class ExportError(LvdmError):
    """A graph could not be exported, or differs from its source."""


class BackendError(LvdmError):
    """A backend is not usable on this machine."""


class SessionError(LvdmError):
    """Feeds do not fit a graph, or running it failed."""


class DeviceMemoryError(SessionError):
    """A session ran out of host or device memory; a smaller batch may fit."""


class NumericsError(LvdmError):
    """A stage produced NaN or infinity."""


class OptionsError(LvdmError):
    """What the caller asks contradicts itself or the model."""


class PlanError(LvdmError):
    """No plan of clips gives what was asked."""


class VideoError(LvdmError):
    """A video cannot be read, decoded, encoded or written."""


class ClusterError(LvdmError):
    """A cluster cannot be used, or has lost all workers."""


class TrainingError(LvdmError):
    """Training cannot start or cannot go on."""


class WorkError(LvdmError):
    """A work directory cannot be used."""


class OtherRunError(WorkError):
    """A work directory is in use, or holds what another run has left."""


def is_failure(err: BaseException) -> bool:
    """Tell whether a library failed: by an error but of memory, or, written in Rust, by a panic."""
    if isinstance(err, MemoryError):
        return False
    return isinstance(err, Exception) or type(err).__name__ == "PanicException"


def no_thread(err: Exception) -> SessionError:
    """Say what to do where the system starts no more threads."""
    return SessionError(
        f"no thread can be started ({err}); lower --threads, end other programs, or raise "
        "the limit of processes (ulimit -u)"
    )


def cause(err: Exception, otherwise: str = "choose another name or place") -> str:
    """Say what an error of the system is and what to do about that one; `otherwise` for the rest.

    Takes whatever has an `errno` and a `strerror`, as the errors of FFmpeg do.
    """
    number, told = getattr(err, "errno", None), getattr(err, "strerror", None) or str(err)
    known = _CAUSES.get(number) if isinstance(number, int) else None
    return known or (f"{told}; {otherwise}" if otherwise else told)


_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space or write to another place",
    errno.EDQUOT: "your quota is used up; remove files of yours, or write to another place",
    errno.EFBIG: "the file is larger than it may be here; raise the limit (ulimit -f), or write to "
    "another place",
    errno.EACCES: "Permission denied; change the permissions, or choose another place",
    errno.EPERM: "Operation not permitted; change the permissions, or choose another place",
    errno.EROFS: "it lies on a read-only file system; choose another place",
    errno.EIO: "the disk reports a fault (Input/output error); look into the system's log, and use "
    "another disk",
    errno.ESTALE: "the disk or its server is gone; connect it again, or choose another place",
    errno.ENOMEM: "too little memory; end other programs, or raise the limit (ulimit -v)",
    errno.EMFILE: "Too many open files; raise the limit (ulimit -n)",
    errno.ENFILE: "Too many open files in the system; end other programs",
}


def quoted(value: object) -> str:
    """Show a value of unknown origin in a message: at most about 100 characters, in one line.

    Bounded in time as well: a nest of shared lists, which has few lines and billions of
    members, is cut while it is walked.
    """
    try:
        return one_line(_SHORT.repr(value), 100)
    except Exception:  # noqa: BLE001 - a number of 10,000 digits, an object whose repr fails
        return f"<{type(value).__name__}>"


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Return the text in one printable line, cut in the middle where it is too long."""
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]} … {text[-half:]}"
    return "".join(c if c.isprintable() else _escaped(c) for c in " ".join(text.split()))


def _escaped(character: str) -> str:
    """Spell out what a terminal would act on instead of showing."""
    return character.encode("unicode_escape").decode("ascii")


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 4
_SHORT.maxstring = _SHORT.maxother = 80
