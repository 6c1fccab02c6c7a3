"""Bundles, manifests and sessions: the contract between export and runtime."""

from lvdm_engines.backends.registry import BACKENDS, SessionOptions
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
