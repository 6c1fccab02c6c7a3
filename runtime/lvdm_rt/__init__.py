"""Torch-free generation of long videos from a bundle.

with Pipeline.open() as pipeline:
    for frames in pipeline.stream(GenerateOptions(frames=1024, seed=7)):  # uint8 (f, h, w, 3)
        ...

Names are loaded when they are first used, so that a command line can answer at once. Knows the
manifest and sessions of a bundle; nothing of torch, of training, or of how a graph came to be.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "Chunk",
    "GenerateOptions",
    "LatentChunk",
    "LvdmError",
    "Pipeline",
    "Progress",
    "SessionOptions",
    "Settings",
    "WorkError",
]

_HOMES = {
    "Chunk": "lvdm_rt.decoding.frames",
    "GenerateOptions": "lvdm_rt.options",
    "LatentChunk": "lvdm_rt.long.videos",
    "LvdmError": "lvdm_engines.errors",
    "Pipeline": "lvdm_rt.pipeline",
    "Progress": "lvdm_rt.progress",
    "SessionOptions": "lvdm_engines.backends.backend",
    "Settings": "lvdm_rt.options",
    "WorkError": "lvdm_engines.errors",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lvdm-rt")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    own = [name for name in globals() if name.startswith("__")]
    return sorted({*own, "__version__", *__all__})
