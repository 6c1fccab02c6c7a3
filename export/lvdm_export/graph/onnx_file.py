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
from torch.export import ExportedProgram

from lvdm_engines.errors import ExportError
from lvdm_export.graph.graphs import Graph
from lvdm_export.graph.half_storage import store_half
from lvdm_export.nets.unet_blocks import BakedEmbedding

OPSET = 20  # 21 and later keep GroupNormalization whole, which ONNX Runtime expands into slow parts
EXTERNAL_ABOVE = 1 << 30  # bytes of weights; a protobuf file ends at 2 GiB
# a clip of one frame has no temporal attention to trace
_DIMENSIONS = {"b": torch.export.Dim("b", min=1), "t": torch.export.Dim("t", min=2)}
_ATEN = torch.ops.aten
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
    name = path.stem
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns about its own internals; what matters is checked by running the file.
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                _traced(graph, clip or 1),  # raises whatever the module does
                input_names=[spec.name for spec in graph.inputs],
                output_names=[spec.name for spec in graph.outputs],
                dynamic_shapes=_free(graph),  # for the names alone
                opset_version=OPSET,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
        except MemoryError:
            raise
        except Exception as err:
            reason = (str(err).strip() or type(err).__name__).splitlines()[0][:200]
            raise ExportError(f"{name} cannot be exported: {reason}") from err
    if program is None:
        raise ExportError(f"{name} cannot be exported: the exporter returned nothing")
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


def _traced(graph: Graph, clip: int) -> ExportedProgram:
    """Trace a graph into operators that the exporter knows, which then has none to decompose.

    It would trace the graph twice more to do that, in more than half of the time of an export.
    """
    example = graph.example(_EXAMPLE_BATCH, clip)
    free = {
        tensor: {axis: _DIMENSIONS[name] for axis, name in axes.items()}
        for tensor, axes in _free(graph).items()
    }
    # sizes of 0 and 1 are not told apart, as where the exporter traces by itself
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(
            graph.module.eval(), (), kwargs=example, dynamic_shapes=free, strict=False
        )
    for node in program.graph_module.graph.nodes:
        if node.target is _ATEN.square.default:
            node.target, node.args = _ATEN.mul.Tensor, (node.args[0],) * 2
        elif node.target is _ATEN.to.dtype:
            node.kwargs = {"dtype": node.args[1]}
            node.target, node.args = _ATEN._to_copy.default, node.args[:1]
    program.graph_module.recompile()
    setattr(program, "run_decompositions", lambda _: program)  # noqa: B010 - mypy
    return program


def _free(graph: Graph) -> dict[str, dict[int, str]]:
    """Name the free dimensions of each input."""
    return {
        spec.name: {axis: name for axis, name in enumerate(spec.shape) if isinstance(name, str)}
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
