"""Whether a network's sizes fit the clips and frames of a model, tried without any memory.

Owns the question only; a config that fails it could be built, and fail hours later.
"""

from collections.abc import Sequence

import torch

from lvdm_engines.contract import difference, graph_tensors
from lvdm_engines.errors import ConfigError, one_line
from lvdm_engines.manifest import ModelFacts, TensorSpec
from lvdm_export.graph.graphs import Graph


def check_sizes(graph: Graph, name: str, model: ModelFacts) -> None:
    """Send one clip through a graph whose network has shapes but no memory (device meta).

    Raises ConfigError: it lacks an input, cannot take the clip, or gives another shape.
    """
    required, optional, _ = graph_tensors(name, model)
    problem = difference("input", graph.inputs, required, optional)
    if problem:
        raise ConfigError(f"the network does not fit {name}: {problem}")
    clip = int(getattr(getattr(model, name, None), "clip", model.decode_window))
    feeds = {spec.name: _empty(spec, clip) for spec in graph.inputs}
    try:
        with torch.no_grad(), torch.device("meta"):
            given = graph.module(**feeds)
    except (RuntimeError, ValueError, ArithmeticError, LookupError) as err:
        raise ConfigError(
            f"the network does not fit {name}, {_told(graph.inputs)} "
            f"({one_line(str(err), 160)}); check the sizes of its levels and of the frames"
        ) from err
    got = tuple((given if isinstance(given, tuple) else (given,))[0].shape)
    wanted = tuple(_empty(graph.outputs[0], clip).shape)
    if got != wanted:
        raise ConfigError(
            f"the network does not fit {name}: it makes {got} of {_told(graph.inputs)}, expected "
            f"{wanted}; check its factors and the size of the frames"
        )


def _empty(spec: TensorSpec, clip: int) -> torch.Tensor:
    free = {"b": 1, "t": clip}
    shape = [free[n] if isinstance(n, str) else n for n in spec.shape]
    return torch.empty(shape, dtype=getattr(torch, spec.dtype), device="meta")


def _told(specs: Sequence[TensorSpec]) -> str:
    return str(specs[0])
