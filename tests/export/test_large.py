"""Autoencoders that cost much to run: what they are compared on."""

import onnx
import pytest
from onnx import numpy_helper
from toy_checkpoints import quiet

from lvdm_engines.errors import ExportError
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.weights import load_autoencoder
from lvdm_export.config.model_facts import model_facts
from lvdm_export.config.model_json import read_record
from lvdm_export.graph import comparison, export
from lvdm_export.graph.export import ExportTarget, export_graph
from lvdm_export.graph.graphs import decoder_graph
from lvdm_export.verify import parity
from lvdm_export.verify.probes import answer_of

pytestmark = pytest.mark.slow  # each exports a decoder twice


@pytest.fixture
def decode(ours, tmp_path, monkeypatch):
    """Export a decoder as one that is large; what rows and sides of latents were run goes along."""
    described = read_record(ours.config.parent.parent / "autoencoder" / "model.json")
    model = model_facts({"predict": read_record(ours.config)}, described)
    weights = open_checkpoint(ours.config.parent.parent / "autoencoder" / "model.safetensors")
    ran, wrong = [], {}

    def answer(session, feeds):
        rows, _, _, side, _ = feeds["latents"].shape
        ran.append((rows, side))
        return answer_of(session, feeds) + wrong.get(side, 0)

    for module in (comparison, parity):
        monkeypatch.setattr(module, "answer_of", answer)
    monkeypatch.setattr(export, "_LARGE", 0)
    monkeypatch.setattr(export, "_FEW", 2)

    def run():
        graph = decoder_graph(load_autoencoder(described.network_config(), weights), model)
        return export_graph(ExportTarget(tmp_path, model, "fp32", quiet), graph, ("decoder",))

    run.ran, run.wrong = ran, wrong
    return run


def test_it_is_compared_at_few_latents_and_in_one_row_at_its_own_size(decode, tmp_path):
    exported = decode()
    assert decode.ran == [(3, 2), (1, 2), (3, 2), (1, 2), (1, 4)]
    told = exported.parity["decoder"]
    assert told["latents"] == (2, 2)
    assert (told["max_rel"] <= 1 / 255, told["grey_levels"] <= 1) == (True, True)
    assert exported.facts.outputs[0].shape[2:] == (8, 8, 3)
    assert exported.references["decoder"]["size"] == 2 * 4 * 8 * 8 * 3  # as torch has them
    assert [path.name for path in tmp_path.iterdir()] == ["decoder.onnx"]


def test_one_whose_graph_depends_on_the_size_is_compared_in_full(decode, monkeypatch):
    monkeypatch.setattr(export, "same_graph", lambda *_: False)
    assert "latents" not in decode().parity["decoder"]
    assert decode.ran == [(3, 4), (1, 4), (3, 4), (1, 4)]


@pytest.mark.parametrize(("side", "wrong"), [(2, 9), (4, 9), (4, float("nan"))])
def test_what_differs_at_either_size_is_refused(decode, side, wrong):
    decode.wrong[side] = wrong
    with pytest.raises(ExportError, match=r"decoder differs from torch by|frames holds NaN"):
        decode()


def test_graphs_are_the_same_by_operators_attributes_and_weights(decode, tmp_path):
    facts = decode().facts
    one = comparison.GraphSource("decoder", facts, tmp_path)
    (tmp_path / "other").mkdir()
    other = comparison.GraphSource("decoder", facts, tmp_path / "other")
    for change in (None, "weight", "attribute", "size"):
        model = onnx.load(tmp_path / facts.file)
        if change == "weight":
            weight = next(w for w in model.graph.initializer if w.data_type == 1)
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, weight.name))
        if change == "attribute":
            conv = next(node for node in model.graph.node if node.op_type == "Conv")
            next(a for a in conv.attribute if a.name == "pads").ints[0] += 1
        if change == "size":
            size = next(w for w in model.graph.initializer if w.data_type == 7 and w.dims)
            size.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(size) * 2, size.name))
        onnx.save(model, other.folder / facts.file)
        assert comparison.same_graph(one, other) == (change in (None, "size"))
