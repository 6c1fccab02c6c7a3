"""What the engine inspector says about a plan, in a few numbers."""

import json
import logging
from collections import Counter
from typing import Any

from lvdm_engines.backends.trt.library import TrtLibrary
from lvdm_engines.errors import LvdmError

_log = logging.getLogger(__name__)

_KINDS = 8  # of layers, the most frequent


def summary_of(library: TrtLibrary, plan: Any) -> dict[str, Any]:
    """Open a plan that was just built, on the GPU that built it, and summarize it, if it can be."""
    try:
        runtime = library.create(library.trt.Runtime)
        engine = runtime.deserialize_cuda_engine(plan)
        return {} if engine is None else summarize(library, engine)
    except (LvdmError, RuntimeError, TypeError) as err:  # the plan is worth more than its summary
        _log.info("%s: the plan is not summarized (%s)", library.name, err)
        return {}


def summarize(library: TrtLibrary, engine: Any) -> dict[str, Any]:
    """Return layer counts by kind, precision of layer outputs, and memory of an engine.

    The inspector's words differ between versions; what it does not say is left out.
    """
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(library.trt.LayerInformationFormat.JSON)
    profiles = range(engine.num_optimization_profiles)
    memory = [int(engine.get_device_memory_size_for_profile_v2(i)) for i in profiles]
    return {**layer_facts(text), "activation_bytes": memory}


def layer_facts(text: str) -> dict[str, Any]:
    """Count layers and output types in the inspector's JSON."""
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    found = told.get("Layers", []) if isinstance(told, dict) else []
    layers = [layer for layer in found if isinstance(layer, dict)]
    kinds = Counter(str(layer.get("LayerType", "unknown")) for layer in layers)
    types = Counter(
        _type(output)
        for layer in layers
        for output in layer.get("Outputs", [])
        if isinstance(output, dict)
    )
    types.pop("", None)
    return {
        "layers": len(found),
        "kinds": dict(kinds.most_common(_KINDS)),
        "output_types": dict(types.most_common()),
    }


def _type(output: dict[str, Any]) -> str:
    """Return a tensor's type: version 11 says it apart, 10 within the format's description."""
    if "DataType" in output:
        return str(output["DataType"])
    words = str(output.get("Format/Datatype", output.get("Format/DataType", ""))).split()
    return words[-1] if words else ""
