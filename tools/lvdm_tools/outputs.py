"""What commands write: one rule for what lies there, that of `lvdm-rt generate`; and plots."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lvdm_engines.atomic import whole_file
from lvdm_engines.errors import ConfigError, OptionsError, cause


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


def write_report(path: Path, report: str | bytes, *, force: bool = True) -> None:
    """Write a report, whole or not at all.

    Raises OptionsError: something has come there meanwhile; ConfigError: it cannot be written.
    """
    check_free([path], force=force)
    try:
        with whole_file(path) as file:
            file.write(report.encode() if isinstance(report, str) else report)
    except OSError as err:
        raise ConfigError(f"cannot write {path}: {cause(err, 'choose another place')}") from err


@cache
def keep_matplotlib_out_of_home() -> None:
    """Give it a directory for its font cache that goes with this process: else it takes the home.

    `MPLCONFIGDIR` moves it, as everywhere.
    """
    if "MPLCONFIGDIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="lvdm-tools-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["MPLCONFIGDIR"] = folder
