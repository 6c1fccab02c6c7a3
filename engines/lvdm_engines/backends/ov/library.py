"""OpenVINO as a library: its import without telemetry, and its errors in one line."""

import importlib
import re
import sys
from functools import cache
from typing import Any

from lvdm_engines.errors import DeviceMemoryError, SessionError

_TELEMETRY = "openvino_telemetry"
_MEMORY = re.compile(r"bad_alloc|allocat|can't alloc|out[ _]of[ _]memory", re.IGNORECASE)
_PLACE = re.compile(r"^(\[ .* \] |.* failed at src/.*|Exception from src/.*)$")


def load() -> Any:
    """Import openvino, the only place that does; raises ImportError.

    Its conversion tool, which is imported along and not used here, reports every import to its
    maker by way of a package of its own, and does without where that cannot be imported.
    """
    if _TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # importing it fails
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]


@cache
def core() -> Any:
    """Return the library's one entrance."""
    return load().Core()


@cache
def native_errors() -> tuple[type[Exception], ...]:
    """Return what OpenVINO raises; the exception types of its readers have no parent of their own.

    Its bindings raise plain errors of Python.
    """
    found = vars(importlib.import_module("openvino._pyopenvino")).values()
    own = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception)]
    return (RuntimeError, MemoryError, ValueError, TypeError, *own)


def version() -> str:
    """Return the library's version with its build."""
    return str(load().get_version())


def unusable() -> str | None:
    """Say why OpenVINO cannot be used and what would fix it, or None."""
    try:
        load()
    except ModuleNotFoundError as err:
        if err.name == "openvino":
            return "OpenVINO is not installed; pip install 'lvdm-rt[openvino]'"
        return f"openvino needs {err.name}, which is not installed; pip install {err.name}"
    except ImportError as err:
        return (
            f"openvino cannot be imported ({err}); "
            "pip install --force-reinstall 'lvdm-rt[openvino]'"
        )
    try:
        found = core().available_devices
    except native_errors() as err:
        return f"openvino cannot start ({short(err)}); pip install --force-reinstall openvino"
    if "CPU" not in found:
        return "openvino has no CPU plugin here; use the backend cpu"
    return None


def session_error(graph: str, doing: str, err: Exception) -> SessionError:
    """Turn an error of the library into one line."""
    line = short(err)
    if isinstance(err, MemoryError) or _MEMORY.search(str(err)):
        return DeviceMemoryError(f"{graph}: out of memory ({line}); lower the batch size")
    return SessionError(f"{graph}: cannot {doing}: {line}")


def short(err: Exception) -> str:
    """Return the last line of an error that says what happened, not where in the library."""
    lines = [line.strip() for line in str(err).splitlines()]
    told = [line for line in lines if line and not _PLACE.match(line)]
    return told[-1] if told else type(err).__name__
