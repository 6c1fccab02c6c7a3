"""What lies at a place that a command is to write to is refused, as by the other commands."""

from collections.abc import Iterable
from pathlib import Path

from lvdm_engines.errors import OptionsError


def check_free(paths: Iterable[Path], *, force: bool) -> None:
    """Refuse, unless `force`, to replace a file: before any work is done.

    Raises OptionsError: naming the first that exists.
    """
    for path in paths:
        if path.exists() and not force:
            raise OptionsError(
                f"cannot write {path}: it exists; --force replaces it, or choose another name"
            )
