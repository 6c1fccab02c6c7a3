"""Torch modules to ONNX files."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir.passes.common as passes
import torch
from onnxscript import ir, optimizer  # here, so that its absence shows before a long export
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

from lvdm_engines.errors import ExportError
from lvdm_export.graph.graphs import Graph
from lvdm_export.graph.half_storage import store_half
from lvdm_export.nets.unet_blocks import BakedEmbedding

OPSET = 20  # 21 and later keep GroupNormalization whole, which ONNX Runtime expands into slow parts
EXTERNAL_ABOVE = 1 << 30  # bytes of weights; a protobuf file ends at 2 GiB
_EXAMPLE_BATCH = 2  # a batch of 1 would be taken for a constant
# Of the rules that torch's exporter applies, those that find something in these graphs. One that
# finds nothing, slices to a split, takes more than all the rest of an export.
_RULES = (
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.reshape_reshape_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
)
_ROUNDS = 2  # after which nothing changes any more


@dataclass(frozen=True)
class Written:
    """What was written: whether weights lie in `<path>.data`, and how many were learnt."""

    external: bool
    parameters: int


def write_onnx(
    graph: Graph, path: Path, *, clip: int | None = None, compact: bool = False
) -> Written:
    """Export a graph; weights above 1 GiB go beside it, into `<path>.data`.

    Args:
        graph: what to export; its module is baked and in its final precision.
        path: the file to write.
        clip: length to trace with where the clip length is free.
        compact: store float32 weights that half precision holds exactly as half.

    Raises ExportError: torch cannot express the graph.
    """
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns about its own internals; what matters is checked by running the file.
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                graph.module.eval(),
                kwargs=graph.example(_EXAMPLE_BATCH, clip or 1),
                input_names=[spec.name for spec in graph.inputs],
                output_names=[spec.name for spec in graph.outputs],
                dynamic_shapes=_dynamic(graph),
                opset_version=OPSET,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as err:
            raise ExportError(
                f"{path.stem} cannot be exported: {str(err).strip().splitlines()[0][:200]}"
            ) from err
    if program is None:
        raise ExportError(f"{path.stem} cannot be exported: the exporter returned nothing")
    _simplify(program.model)
    _strip(program.model)
    weights: list[Any] = [v.const_value for v in program.model.graph.initializers.values()]
    tables = sum(m.more for m in graph.module.modules() if isinstance(m, BakedEmbedding))
    parameters = sum(w.size for w in weights if w.dtype.is_floating_point()) - tables
    if compact:
        store_half(program.model)
    external = sum(weight.nbytes for weight in weights) > EXTERNAL_ABOVE
    program.save(str(path), external_data=external)
    return Written(external, parameters)


def _dynamic(graph: Graph) -> dict[str, dict[int, Any]]:
    """Name the free dimensions; a clip of one frame has no temporal attention to trace."""
    free = {"b": torch.export.Dim("b", min=1), "t": torch.export.Dim("t", min=2)}
    return {
        spec.name: {axis: free[n] for axis, n in enumerate(spec.shape) if isinstance(n, str)}
        for spec in graph.inputs
    }


def _simplify(model: ir.Model) -> None:
    """Fold constants and drop what does nothing, in place."""
    optimizer.inline(model)
    for _ in range(_ROUNDS):
        optimizer.fold_constants(model, onnx_shape_inference=True)
        RewritePass(_RULES)(model)
        passes.RemoveUnusedNodesPass()(model)
    for finish in (
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        finish(model)


def _strip(model: ir.Model) -> None:
    """Drop the exporter's notes: they are large, and name files of the exporting machine."""
    model.metadata_props.clear()
    graphs: list[Any] = [model.graph, *model.functions.values()]
    nodes = [node for graph in graphs for node in graph]
    made = [value for node in nodes for value in node.outputs]
    given = [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]
    for part in (*graphs, *nodes, *made, *given):
        part.metadata_props.clear()
        part.doc_string = None
