"""One graph of a bundle: measured in torch, exported, and compared with torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from lvdm_engines.bundle import GraphSource, file_sha256
from lvdm_engines.manifest import GraphFacts, ModelFacts, Precision
from lvdm_export.graph import activations
from lvdm_export.graph.comparison import TorchTrial, compare, compare_one_row, same_graph, tensors
from lvdm_export.graph.graphs import Graph, resized, with_few_latents
from lvdm_export.graph.half_storage import round_weights
from lvdm_export.graph.onnx_file import write_onnx
from lvdm_export.nets.layers import bake, to_half
from lvdm_export.verify.parity import Parity
from lvdm_export.verify.probes import clip_of

_COSTLY = 100.0  # GFLOP per run above which one probe has to do
# GFLOP per run above which an autoencoder is compared at few latents, as exporting it twice pays
_LARGE = 500.0
_FEW = 8  # latents a side


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

    The graph's network is used up: it ends baked, and in the target's precision. A large one of an
    autoencoder is compared at few latents, if it is the same graph there, and with one row at its
    own size.

    Raises ExportError: the graph cannot be exported, runs over in half precision, or differs.
    """
    stem = names[0] if len(names) == 1 else "denoiser"
    clip = max(clip_of(target.model, name) for name in names)
    if target.weights == "fp16":
        round_weights(graph.module)
    gflop = count_gflop(graph, clip)
    target.report(f"{stem}: running in torch ({gflop:.1f} GFLOP per run)")
    trial = TorchTrial.of(graph, names, target.model, 1 if gflop > _COSTLY else 2)
    few = with_few_latents(target.model, _FEW)
    small: TorchTrial | None = None
    if gflop > _LARGE and stem in ("encoder", "decoder") and few != target.model:
        small = TorchTrial.of(resized(graph, stem, few), names, few, 2)
    measured = _to_precision(target, stem, trial)
    bake(graph.module)
    target.report(f"{stem}: exporting to ONNX ({target.precision})")
    source = _write(target, graph, stem, clip, gflop)
    target.report(f"{stem}: comparing with torch")
    notes: dict[str, Any] = {"activations": measured} if measured else {}
    known = None if small is None else _compared_small(target, source, small, clip)
    if known is None:
        found = compare(source, trial, target.precision)
    else:
        found = compare_one_row(source, trial, target.precision, known)
        notes["latents"] = few.latent.size
    return ExportedGraph(
        source.facts,
        {name: told.entry("torch fp32") | notes for name, told in found.items()},
        trial.references(),
    )


def _compared_small(
    target: ExportTarget, source: GraphSource, small: TorchTrial, clip: int
) -> dict[str, Parity] | None:
    """Export a graph again, at few latents, and compare it there; None if it is another one."""
    with TemporaryDirectory(dir=target.folder) as beside:
        gflop = count_gflop(small.graph, clip)
        twin = _write(replace(target, folder=Path(beside)), small.graph, source.name, clip, gflop)
        return compare(twin, small, target.precision) if same_graph(source, twin) else None


def _write(target: ExportTarget, graph: Graph, stem: str, clip: int, gflop: float) -> GraphSource:
    path = target.folder / f"{stem}.onnx"
    written = write_onnx(graph, path, clip=clip, compact=target.weights == "fp16")
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
    return GraphSource(stem, facts, target.folder)


def count_gflop(graph: Graph, clip: int) -> float:
    """Count the multiplications and additions of one run at batch 1, in billions of operations."""
    tensors = (*graph.module.named_parameters(), *graph.module.named_buffers())
    weights = {name: tensor.to("meta") for name, tensor in tensors}  # shapes without memory
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        functional_call(graph.module, weights, kwargs=graph.example(1, clip))
    return float(counter.get_total_flops()) / 1e9


def _to_precision(target: ExportTarget, stem: str, trial: TorchTrial) -> dict[str, Any] | None:
    """Cast the network if it is to run in half precision and may; returns what was measured."""
    if target.precision == "fp32":
        return None
    module = trial.graph.module
    target.report(f"{stem}: measuring the largest activations")
    batches = [tensors(probe) for batch in trial.probes.values() for probe in batch]
    largest = activations.measure(module, batches)
    activations.check(stem, module, largest)
    to_half(module)
    return largest.summary()
