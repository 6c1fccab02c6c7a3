"""Whether a network's sizes fit the clips and frames of a model, tried without any memory.

Owns the question only; a config that fails it could be built, and fail hours later.
"""

import torch

from lvdm_engines.contract import difference, graph_tensors
from lvdm_engines.errors import ConfigError, one_line
from lvdm_engines.manifest import ModelFacts
from lvdm_export.graph.graphs import Graph, sized
from lvdm_export.verify.probes import clip_of


def check_sizes(graph: Graph, name: str, model: ModelFacts) -> None:
    """Send one clip through a graph whose network has shapes but no memory (device meta).

    Raises ConfigError: it lacks an input, cannot take the clip, or gives another shape.
    """
    required, optional, _ = graph_tensors(name, model)
    problem = difference("input", graph.inputs, required, optional)
    if problem:
        raise ConfigError(f"the network does not fit {name}: {problem}")
    clip = clip_of(model, name)
    try:
        with torch.no_grad(), torch.device("meta"):
            given = graph.module(**graph.example(1, clip))
    except (RuntimeError, ValueError, ArithmeticError, LookupError) as err:
        raise ConfigError(
            f"the network does not fit {name}, {graph.inputs[0]} "
            f"({one_line(str(err), 160)}); check the sizes of its levels and of the frames"
        ) from err
    got = tuple((given if isinstance(given, tuple) else (given,))[0].shape)
    wanted = sized(graph.outputs[0], 1, clip)
    if got != wanted:
        raise ConfigError(
            f"the network does not fit {name}: it makes {got} of {graph.inputs[0]}, expected "
            f"{wanted}; check its factors and the size of the frames"
        )
