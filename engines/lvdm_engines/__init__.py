"""Bundles, manifests and sessions: the contract between export and runtime.

Names are loaded when they are first used, so that a command line can answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lvdm_engines.backends.backend import BACKENDS, SessionOptions
    from lvdm_engines.bundle import Bundle, builtin_bundles, file_sha256, load_bundle
    from lvdm_engines.bundle_writer import BundleWriter
    from lvdm_engines.errors import LvdmError
    from lvdm_engines.manifest import (
        ContextFacts,
        Defaults,
        GraphFacts,
        InterpolateFacts,
        LatentFacts,
        Manifest,
        ModelFacts,
        PredictFacts,
        Preset,
        Provenance,
        ScheduleFacts,
        ShortFacts,
        TensorSpec,
    )
    from lvdm_engines.session import (
        Choice,
        Session,
        backend_report,
        check_feeds,
        choose_backend,
        open_session,
        open_sessions,
    )

__all__ = [
    "BACKENDS",
    "Bundle",
    "BundleWriter",
    "Choice",
    "ContextFacts",
    "Defaults",
    "GraphFacts",
    "InterpolateFacts",
    "LatentFacts",
    "LvdmError",
    "Manifest",
    "ModelFacts",
    "PredictFacts",
    "Preset",
    "Provenance",
    "ScheduleFacts",
    "Session",
    "SessionOptions",
    "ShortFacts",
    "TensorSpec",
    "backend_report",
    "builtin_bundles",
    "check_feeds",
    "choose_backend",
    "file_sha256",
    "load_bundle",
    "open_session",
    "open_sessions",
]

_HOMES = {
    "lvdm_engines.backends.backend": (
        "BACKENDS",
        "SessionOptions",
    ),
    "lvdm_engines.bundle": (
        "Bundle",
        "builtin_bundles",
        "file_sha256",
        "load_bundle",
    ),
    "lvdm_engines.bundle_writer": ("BundleWriter",),
    "lvdm_engines.errors": ("LvdmError",),
    "lvdm_engines.manifest": (
        "ContextFacts",
        "Defaults",
        "GraphFacts",
        "InterpolateFacts",
        "LatentFacts",
        "Manifest",
        "ModelFacts",
        "PredictFacts",
        "Preset",
        "Provenance",
        "ScheduleFacts",
        "ShortFacts",
        "TensorSpec",
    ),
    "lvdm_engines.session": (
        "Choice",
        "Session",
        "backend_report",
        "check_feeds",
        "choose_backend",
        "open_session",
        "open_sessions",
    ),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
