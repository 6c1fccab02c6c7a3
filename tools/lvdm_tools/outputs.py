"""What lies at a place that a command is to write to: one rule, that of `lvdm-rt generate`."""

from collections.abc import Iterable
from pathlib import Path

from lvdm_engines.atomic import whole_file
from lvdm_engines.errors import ConfigError, OptionsError


def check_free(paths: Iterable[Path], *, force: bool) -> None:
    """Refuse, unless `force`, to replace a file, and a link or a folder always: before any work.

    Raises OptionsError: naming the first that exists.
    """
    for path in paths:
        if path.is_symlink():
            raise OptionsError(
                f"cannot write {path}: it is a link; give the place that it leads to"
            )
        if path.is_dir():
            raise OptionsError(f"cannot write {path}: it is a folder; choose another name")
        if path.exists() and not force:
            raise OptionsError(
                f"cannot write {path}: it exists; --force replaces it, or choose another name"
            )


def write_report(path: Path, text: str, *, force: bool = True) -> None:
    """Write a report, whole or not at all.

    Raises OptionsError: something has come there meanwhile; ConfigError: it cannot be written.
    """
    check_free([path], force=force)
    try:
        with whole_file(path) as file:
            file.write(text.encode())
    except OSError as err:
        raise ConfigError(
            f"cannot write {path}: {err.strerror or err}; choose another place"
        ) from err
