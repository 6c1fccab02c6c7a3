"""Weights that fit half precision exactly, stored as such: half the file, the same numbers.

Only storage changes. Every runtime folds the casts when it loads the graph, and computes with the
float32 values that were there before.
"""

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

SMALLEST = 1024  # values; below this a cast costs more than it saves


def round_weights(module: nn.Module) -> nn.Module:
    """Round all parameters to values that half precision holds, in place; returns `module`."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.half())
    return module


def store_half(model: ir.Model) -> int:
    """Store float32 weights that half precision holds exactly as half; returns how many tensors."""
    changed = 0
    for name, value in list(model.graph.initializers.items()):
        weights = value.const_value
        if weights is None or weights.dtype != ir.DataType.FLOAT or weights.size < SMALLEST:
            continue
        array = weights.numpy()
        half = array.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), array):
            continue
        stored = ir.Value(
            name=f"{name}_half",
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.tensor(half, name=f"{name}_half"),
        )
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT})
        cast.outputs[0].name, cast.outputs[0].shape = f"{name}_float", value.shape
        cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        model.graph.initializers.pop(name)
        model.graph.register_initializer(stored)
        model.graph.insert_before(model.graph[0], cast)
        changed += 1
    return changed
