"""One graph of a bundle: measured in torch, exported, and compared with torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import GraphSource, file_sha256
from lvdm_engines.errors import ExportError
from lvdm_engines.manifest import GraphFacts, ModelFacts, Precision
from lvdm_engines.opening import load_backend
from lvdm_export.graph import activations
from lvdm_export.graph.graphs import Graph
from lvdm_export.graph.half_storage import round_weights
from lvdm_export.graph.onnx_file import write_onnx
from lvdm_export.nets.layers import bake, to_half
from lvdm_export.verify import parity
from lvdm_export.verify.probes import DISTINCT, Probe, clip_of, make_probes

_COSTLY = 100.0  # GFLOP per run above which one probe has to do


@dataclass(frozen=True)
class ExportTarget:
    """Where graphs go and what they have in common."""

    folder: Path
    model: ModelFacts
    precision: Precision
    report: Callable[[str], None]
    weights: Precision = "fp32"  # how weights are rounded and stored, not what computes


@dataclass(frozen=True)
class ExportedGraph:
    """The facts of a graph file; by graph name, its parity report and some of torch's answers."""

    facts: GraphFacts
    parity: dict[str, dict[str, Any]]
    references: dict[str, dict[str, Any]]


def steps(precision: Precision) -> int:
    """Return how many lines are told of a network, that of reading its weights included."""
    return 4 if precision == "fp32" else 5


def export_graph(target: ExportTarget, graph: Graph, names: tuple[str, ...]) -> ExportedGraph:
    """Export a graph that serves `names`, and compare it with torch under each of them.

    The graph's network is used up: it ends baked, and in the target's precision.

    Raises ExportError: the graph cannot be exported, runs over in half precision, or differs.
    """
    stem = names[0] if len(names) == 1 else "denoiser"
    clip = {name: clip_of(target.model, name) for name in names}
    if target.weights == "fp16":
        round_weights(graph.module)
    gflop = max(count_gflop(graph, n) for n in clip.values())
    count = 1 if gflop > _COSTLY else 2
    probes = {
        name: make_probes(name, graph.inputs, target.model, count, graph.vocabulary)
        for name in names
    }
    target.report(f"{stem}: running in torch ({gflop:.1f} GFLOP per run)")
    answers = {name: _answers(graph.module, batch) for name, batch in probes.items()}
    measured = _to_precision(target, stem, graph, probes)
    bake(graph.module)
    target.report(f"{stem}: exporting to ONNX ({target.precision})")
    path = target.folder / f"{stem}.onnx"
    written = write_onnx(graph, path, clip=max(clip.values()), compact=target.weights == "fp16")
    facts = GraphFacts(
        file=path.name,
        sha256=file_sha256(path),
        data_sha256=file_sha256(Path(f"{path}.data")) if written.external else None,
        precision=target.precision,
        inputs=graph.inputs,
        outputs=graph.outputs,
        parameters=written.parameters,
        gflop=float(f"{gflop:.4g}"),
    )
    source = GraphSource(stem, facts, target.folder)
    target.report(f"{stem}: comparing with torch")
    exported = ExportedGraph(facts, {}, {})
    with load_backend("cpu").open(source, SessionOptions()) as session:
        for name, batch in probes.items():
            reference = parity.Reference.complete(answers[name])
            told = parity.measure(session, batch, reference)
            parity.check(name, told, target.precision)
            activity = {"activations": measured} if measured else {}
            exported.parity[name] = told.entry("torch fp32") | activity
            exported.references[name] = reference.sampled()
    return exported


def count_gflop(graph: Graph, clip: int) -> float:
    """Count the multiplications and additions of one run at batch 1, in billions of operations."""
    tensors = (*graph.module.named_parameters(), *graph.module.named_buffers())
    weights = {name: tensor.to("meta") for name, tensor in tensors}  # shapes without memory
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        functional_call(graph.module, weights, kwargs=graph.example(1, clip))
    return float(counter.get_total_flops()) / 1e9


def _answers(module: nn.Module, probes: list[Probe]) -> list[Any]:
    answers = []
    with torch.no_grad():
        for probe in probes:
            given = module(**_tensors(probe))
            outputs = given if isinstance(given, tuple) else (given,)
            if not all(output.isfinite().all() for output in outputs):
                raise ExportError(
                    "the network itself gives NaN or infinity in torch; check the checkpoint"
                )
            answers.append(outputs[0].numpy())
    return answers


def _tensors(probe: Probe) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(rows) for name, rows in probe.rows(0, DISTINCT).items()}


def _to_precision(
    target: ExportTarget, stem: str, graph: Graph, probes: dict[str, list[Probe]]
) -> dict[str, Any] | None:
    """Cast the network if it is to run in half precision and may; returns what was measured."""
    if target.precision == "fp32":
        return None
    target.report(f"{stem}: measuring the largest activations")
    batches = [_tensors(probe) for batch in probes.values() for probe in batch]
    largest = activations.measure(graph.module, batches)
    activations.check(stem, graph.module, largest)
    to_half(graph.module)
    return largest.summary()
