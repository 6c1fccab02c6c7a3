"""Configuration files of unknown origin as bytes, within bounds.

Knows nothing of what they say.
"""

from pathlib import Path

from lvdm_engines.atomic import read_file
from lvdm_engines.errors import ConfigError, cause

_LONGEST = 1 << 20  # bytes


def read_bounded(path: Path) -> bytes:
    """Return all bytes of a configuration file.

    Raises ConfigError: unreadable, or too large for one.
    """
    try:
        data = read_file(path, _LONGEST + 1)
    except OSError as err:
        raise ConfigError(
            f"cannot read the config {path}: {cause(err, 'name a file that can be read')}"
        ) from err
    except ValueError as err:  # a name that no file can have
        raise ConfigError(f"cannot read the config {path}: {err}") from err
    if len(data) > _LONGEST:
        raise ConfigError(f"{path} is larger than {_LONGEST} bytes, expected a configuration")
    return data
