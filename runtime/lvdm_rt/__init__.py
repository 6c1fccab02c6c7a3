"""Torch-free generation of long videos from a bundle.

with Pipeline.open() as pipeline:
    for frames in pipeline.stream(GenerateOptions(frames=1024, seed=7)):  # uint8 (f, h, w, 3)
        ...

Names are loaded when they are first used, so that a command line can answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvdm_rt.decoding.frames import Chunk
    from lvdm_rt.long.sampling import LatentChunk
    from lvdm_rt.long.workdir import WorkError
    from lvdm_rt.options import GenerateOptions, Settings
    from lvdm_rt.pipeline import Pipeline
    from lvdm_rt.progress import Progress

__all__ = [
    "Chunk",
    "GenerateOptions",
    "LatentChunk",
    "Pipeline",
    "Progress",
    "Settings",
    "WorkError",
]

_HOMES = {
    "Chunk": "decoding.frames",
    "GenerateOptions": "options",
    "LatentChunk": "long.sampling",
    "Pipeline": "pipeline",
    "Progress": "progress",
    "Settings": "options",
    "WorkError": "long.workdir",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lvdm_rt.{_HOMES[name]}"), name)
