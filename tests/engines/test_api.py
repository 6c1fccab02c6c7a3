import inspect

import lvdm_engines
from lvdm_engines import errors


def test_the_public_names_are_these():
    assert lvdm_engines.__all__ == [
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
    assert all(hasattr(lvdm_engines, name) for name in lvdm_engines.__all__)


def test_every_error_is_an_lvdm_error_and_stands_in_the_drawn_tree():
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    assert all(issubclass(kind, errors.LvdmError) for kind in kinds)
    assert all(kind.__name__ in errors.__doc__ for kind in kinds)
