"""Weights stored in half precision: the same numbers from half the file."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ir = pytest.importorskip("onnx_ir")
onnxruntime = pytest.importorskip("onnxruntime")

from lvdm_export.graph.half_storage import round_weights, store_half


def model_of(weights):
    """A graph that multiplies x (2, 64) by `weights` (64, 64)."""
    x = ir.Value(name="x", shape=ir.Shape((2, 64)), type=ir.TensorType(ir.DataType.FLOAT))
    w = ir.Value(
        name="w",
        shape=ir.Shape(weights.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(weights, name="w"),
    )
    product = ir.node("MatMul", [x, w])
    product.outputs[0].name = "y"
    product.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [x], product.outputs, nodes=[product], initializers=[w], opset_imports={"": 20}
    )
    return ir.Model(graph, ir_version=10)


def run(model, x):
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return len(data), session.run(None, {"x": x})[0]


def test_exact_weights_take_half_the_space_and_give_the_same_bits():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 64)).astype(np.float16).astype(np.float32)
    x = rng.standard_normal((2, 64), dtype=np.float32)
    size, expected = run(model_of(weights), x)
    model = model_of(weights)
    assert store_half(model) == 1
    smaller, actual = run(model, x)
    assert smaller < 0.6 * size
    assert np.array_equal(actual, expected)


def test_weights_that_half_precision_would_change_are_left_alone():
    weights = np.full((64, 64), 0.1, dtype=np.float32)
    assert store_half(model_of(weights)) == 0


def test_rounded_weights_fit_half_precision_and_stay_float32():
    layer = round_weights(torch.nn.Linear(8, 8))
    assert layer.weight.dtype == torch.float32
    assert torch.equal(layer.weight, layer.weight.half().float())
