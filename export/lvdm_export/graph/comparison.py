"""An exported graph beside torch: on all probes or, where those cost much, at few latents.

Knows what torch answers and what a session does; nothing of how graphs are written.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import GraphSource
from lvdm_engines.errors import ExportError
from lvdm_engines.manifest import ModelFacts, Precision
from lvdm_engines.opening import load_backend
from lvdm_export.graph.graphs import Graph
from lvdm_export.verify import parity
from lvdm_export.verify.probes import DISTINCT, Probe, answer_of, make_probes


@dataclass(frozen=True)
class TorchTrial:
    """A graph with its probes and torch's answers to them, by graph name."""

    graph: Graph
    probes: dict[str, list[Probe]]
    answers: dict[str, list[NDArray[Any]]]

    @classmethod
    def of(cls, graph: Graph, names: tuple[str, ...], model: ModelFacts, count: int) -> Self:
        """Run `count` probes for each name in torch. Raises ExportError for NaN or infinity."""
        probes = {
            name: make_probes(name, graph.inputs, model, count, graph.vocabulary) for name in names
        }
        answers = {name: _answers(graph.module, batch) for name, batch in probes.items()}
        return cls(graph, probes, answers)

    def references(self) -> dict[str, dict[str, Any]]:
        """Return a sample of the answers, for the bundle."""
        complete = parity.Reference.complete
        return {name: complete(found).sampled() for name, found in self.answers.items()}


def same_graph(one: GraphSource, other: GraphSource) -> bool:
    """Tell whether two graphs have the same operators with the same attributes and weights.

    Only whole numbers may differ, which are sizes.
    """
    return _content(one) == _content(other)


def _content(source: GraphSource) -> tuple[list[Any], list[bytes]]:
    graph = onnx.load(source.folder / source.facts.file).graph
    nodes = [(n.op_type, *(a.SerializeToString() for a in n.attribute)) for n in graph.node]
    arrays = (numpy_helper.to_array(weight) for weight in graph.initializer)
    weights = [hashlib.sha256(a.tobytes()).digest() for a in arrays if a.dtype.kind == "f"]
    return nodes, weights


def compare(
    source: GraphSource, trial: TorchTrial, precision: Precision
) -> dict[str, parity.Parity]:
    """Try a graph on all probes, in batches and alone. Raises ExportError where it differs."""
    found = {}
    with load_backend("cpu").open(source, SessionOptions()) as session:
        for name, probes in trial.probes.items():
            reference = parity.Reference.complete(trial.answers[name])
            found[name] = parity.measure(session, probes, reference)
            parity.check(name, found[name], precision)
    return found


def compare_one_row(
    source: GraphSource, trial: TorchTrial, precision: Precision, known: dict[str, parity.Parity]
) -> dict[str, parity.Parity]:
    """Try a graph on one row, and add what differs to `known`, which its twin gave.

    Raises ExportError where it differs.
    """
    found = {}
    with load_backend("cpu").open(source, SessionOptions()) as session:
        for name, (probe, *_) in trial.probes.items():
            reference = parity.Reference.complete([trial.answers[name][0][:1]])
            answer = answer_of(session, probe.rows(0, 1))
            if not np.isfinite(answer).all():
                raise ExportError(f"{session.outputs[0].name} holds NaN or infinity")
            apart = reference.difference(0, answer)
            found[name] = known[name].with_difference(apart, reference.peaks[0])
            parity.check(name, found[name], precision)
    return found


def tensors(probe: Probe) -> dict[str, torch.Tensor]:
    """Return the distinct rows of a probe as torch takes them."""
    return {name: torch.from_numpy(rows) for name, rows in probe.rows(0, DISTINCT).items()}


def _answers(module: nn.Module, probes: list[Probe]) -> list[NDArray[Any]]:
    answers = []
    with torch.no_grad():
        for probe in probes:
            given = module(**tensors(probe))
            outputs = given if isinstance(given, tuple) else (given,)
            if not all(output.isfinite().all() for output in outputs):
                raise ExportError(
                    "the network itself gives NaN or infinity in torch; check the checkpoint"
                )
            answers.append(outputs[0].numpy())
    return answers
