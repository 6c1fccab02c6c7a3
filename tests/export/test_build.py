"""A whole export: what is in the bundle, what is reported, and what is left after a failure."""

import json
import re
import shutil

import msgspec
import numpy as np
import onnx
import pytest
import torch
from toy_checkpoints import quiet

from lvdm_engines.bundle import file_sha256, load_bundle
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.errors import BundleError, ExportError
from lvdm_engines.manifest import Manifest, Provenance
from lvdm_engines.manifest_json import format_manifest
from lvdm_engines.opening import open_session
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.weights import load_denoiser
from lvdm_export.config.model_facts import model_facts
from lvdm_export.config.model_json import read_record
from lvdm_export.graph.export import ExportTarget, export_graph
from lvdm_export.graph.graphs import denoiser_graph
from lvdm_export.inspection import describe
from lvdm_export.verify.parity import verify_bundle

pytestmark = pytest.mark.slow  # two bundles are exported first


def run(bundle, graph, feeds):
    with open_session(bundle, graph, "cpu") as session:
        return next(iter(session.run(feeds).values()))


@pytest.fixture(scope="session")
def half(ours, tmp_path_factory):
    """Export the jointly trained denoiser of ours in half precision, for clips of 4 and of 5."""
    names = ("predict", "interpolate")
    record = read_record(ours.config)
    config = record.network_config()
    autoencoder = read_record(ours.config.parent.parent / "autoencoder" / "model.json")
    model = model_facts(dict.fromkeys(names, record), autoencoder)
    network = load_denoiser(config, open_checkpoint(ours.checkpoint), ema=True)
    with BundleWriter(tmp_path_factory.mktemp("bundles") / "half") as writer:
        target = ExportTarget(writer.path, model, "fp16", quiet)
        exported = export_graph(target, denoiser_graph(network, names, model), names)
        writer.record(exported.references)
        origin = Provenance(file_sha256(ours.checkpoint), ema=False, lvdm_rt="0")
        return writer.finish(
            Manifest(
                name="half",
                model=model,
                graphs=dict.fromkeys(names, exported.facts),
                provenance=origin,
                parity=exported.parity,
            )
        )


def test_graphs_of_one_network_share_a_file(bundle, half):
    for made in (bundle, half):
        graphs = made.manifest.graphs
        assert graphs["predict"] == graphs["interpolate"]
        assert [path.name for path in made.path.glob("denoiser.onnx*")] == ["denoiser.onnx"]


def test_the_batch_is_free_and_the_clip_only_where_lengths_differ(bundle, half):
    assert bundle.manifest.graphs["predict"].inputs[0].shape == ("b", 2, 5, 4, 4)
    assert half.manifest.graphs["predict"].inputs[0].shape == ("b", 2, "t", 4, 4)
    model = onnx.load(bundle.path / "denoiser.onnx")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "b"
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]


def test_graph_files_say_nothing_about_the_machine_that_made_them(bundle):
    for path in bundle.path.glob("*.onnx"):
        assert b"site-packages" not in path.read_bytes()
        assert b"lvdm_export" not in path.read_bytes()


def test_the_denoiser_gives_what_the_averaged_weights_give(bundle, official):
    rng = np.random.default_rng(0)
    feeds = {
        "latents": rng.standard_normal((3, 2, 5, 4, 4)).astype(np.float32),
        "timestep": np.array([0, 500, 999]),
        "mask": np.eye(3, 5, dtype=np.float32),
        "noise_level": np.array([-1, 0, 9]),
    }
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
    with torch.no_grad():
        expected = official.ema(*tensors.values()).numpy()
    eps = run(bundle, "predict", feeds)
    assert np.abs(eps - expected).max() < 1e-4 * np.abs(expected).max()


def test_pixels_and_latent_normalisation_are_inside_the_graphs(bundle, official):
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8)
    x = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        mean = official.autoencoder.encode(x).chunk(2, 1)[0]
        decoded = official.autoencoder.decode(mean)
    latents = run(bundle, "encoder", {"frames": frames})
    assert np.allclose(latents, 0.5 * (mean.numpy() + 1.25), atol=1e-5)
    levels = ((decoded + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 4, 1).numpy()
    back = run(bundle, "decoder", {"latents": latents})
    assert back.dtype == np.uint8
    assert np.abs(back - levels).max() <= 1  # values halfway between levels round either way


def test_the_manifest_reports_parity_cost_and_origin(bundle, official):
    manifest = bundle.manifest
    for name, graph in manifest.graphs.items():
        entry = manifest.parity[name]
        limit = 1.01 / 255 if name == "decoder" else 1e-4
        assert entry["max_rel"] < limit
        assert entry["equal_rows"] == 0
        assert entry["batches"] == [1, 3]
        assert graph.gflop > 0
    assert manifest.provenance.ema
    assert isinstance(manifest.provenance.checkpoint_sha256, str)
    unet = sum(parameter.numel() for parameter in official.unet.parameters())
    found = manifest.graphs["predict"].parameters
    assert unet <= found < 1.1 * unet  # and constants, which are many beside so small a network
    assert manifest.defaults.guidance == 0.1
    assert manifest.defaults.noise_level == 9
    assert (manifest.defaults.eta, manifest.defaults.refine) == (0.9, 1)


def test_half_precision_keeps_float32_outside_and_records_activations(half):
    for name, graph in half.manifest.graphs.items():
        assert graph.precision == "fp16"
        assert all(spec.dtype != "float16" for spec in (*graph.inputs, *graph.outputs))
        measured = half.manifest.parity[name]["activations"]
        assert measured["limit"] == 65504 / 4
        assert 0 < max(measured["largest"].values()) < measured["limit"]
    assert half.manifest.parity["predict"]["max_rel"] < 1e-2


def test_statistics_and_softmax_are_float32_islands_in_half_graphs(half):
    model = onnx.load(half.path / "denoiser.onnx")
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    islands = [n for n in model.graph.node if n.op_type in ("InstanceNormalization", "Softmax")]
    assert islands
    assert {types[node.output[0]] for node in islands} == {onnx.TensorProto.FLOAT}
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    assert {types.get(node.output[0], 10) for node in convolutions} == {onnx.TensorProto.FLOAT16}


def test_both_clip_lengths_run_in_one_file(half):
    for graph, clip in (("predict", 4), ("interpolate", 5)):
        feeds = {
            "latents": np.ones((1, 2, clip, 4, 4), np.float32),
            "timestep": np.array([10]),
            "mask": np.ones((1, clip), np.float32),
            "noise_level": np.array([3]),
        }
        assert run(half, graph, feeds).shape == (1, 2, clip, 4, 4)


def test_verify_measures_a_finished_bundle_again(bundle, half):
    for made in (bundle, half):
        report = verify_bundle(made, quiet)
        assert set(report) == set(made.manifest.graphs)
        assert all(entry["max_rel"] is not None for entry in report.values())


def test_verify_finds_a_graph_that_computes_something_else(bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    model = onnx.load(copy / "denoiser.onnx")
    weight = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    values = np.frombuffer(weight.raw_data, np.float32) * np.float32(1.01)
    weight.raw_data = values.tobytes()
    onnx.save(model, copy / "denoiser.onnx")
    with pytest.raises(BundleError, match="damaged or was replaced"):
        verify_bundle(load_bundle(copy), quiet)
    graphs = {
        name: msgspec.structs.replace(graph, sha256=file_sha256(copy / graph.file))
        for name, graph in bundle.manifest.graphs.items()
    }
    forged = msgspec.structs.replace(bundle.manifest, graphs=graphs)
    (copy / "manifest.json").write_bytes(format_manifest(forged))
    with pytest.raises(ExportError, match=r"predict differs from torch by"):
        verify_bundle(load_bundle(copy), quiet)


@pytest.mark.parametrize("content", [b"{", b'{"predict": {"rule": 1, "size": 9, "peaks": []}}'])
def test_damaged_recorded_answers_are_told(bundle, tmp_path, content):
    shutil.copytree(bundle.path, tmp_path / "copy")
    (tmp_path / "copy" / "references.json").write_bytes(content)
    with pytest.raises(
        BundleError, match=r"recorded answers are damaged.*; export the bundle again"
    ):
        verify_bundle(load_bundle(tmp_path / "copy"), quiet)


def test_answers_are_read_from_older_manifests_and_may_be_missing(bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    references = json.loads((copy / "references.json").read_bytes())
    assert references.keys() == bundle.manifest.graphs.keys()
    (copy / "references.json").unlink()
    report = verify_bundle(load_bundle(copy), quiet)
    assert {entry["against"] for entry in report.values()} == {"nothing recorded"}
    parity = {
        name: {**entry, "reference": references[name]}
        for name, entry in bundle.manifest.parity.items()
    }
    older = msgspec.structs.replace(bundle.manifest, parity=parity)
    (copy / "manifest.json").write_bytes(format_manifest(older))
    assert verify_bundle(load_bundle(copy), quiet) == verify_bundle(bundle, quiet)


def test_inspect_shows_a_line_for_every_file_with_cost_and_parity(bundle):
    text = describe(str(bundle.path))
    assert re.search(r"weights +EMA: checkpoint \w{8}; by lvdm-rt", text)
    errors = [bundle.manifest.parity[name]["max_rel"] for name in ("interpolate", "predict")]
    row = rf"interpolate predict +denoiser\.onnx +fp32 +0\.2 +0\.01M +0\.00 +{max(errors):.1e}"
    assert re.search(row, text)
    assert text.count(".onnx") == 3


def test_inspect_of_the_built_in_bundle_fits_one_screen():
    lines = describe("sky-tiny").splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines[1:])) <= 80
