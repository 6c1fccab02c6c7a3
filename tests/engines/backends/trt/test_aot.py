"""Every kind of graph that we export compiles in TensorRT-RTX, which needs no GPU to do so.

TensorRT reads ONNX with the same parser. What the plans compute is for `lvdm-tools gpu-check`.
"""

import shutil
from functools import cache

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
torch = pytest.importorskip("torch")


from lvdm_engines.backends.plan_facts import PlanOptions, Range
from lvdm_engines.backends.trt.build import build_plans
from lvdm_engines.backends.trt.compile import CompileJob, compile_plan
from lvdm_engines.backends.trt.library import load_library
from lvdm_engines.backends.trt.profiles import graph_files
from lvdm_engines.bundle import builtin_bundles, load_bundle
from lvdm_engines.contract import MEAN
from lvdm_engines.manifest import GraphFacts, LatentFacts, TensorSpec
from lvdm_export.graph.graphs import DecoderGraph, EncoderGraph, Graph
from lvdm_export.graph.onnx_file import write_onnx

# Of what is compared with the record anyway, both kinds of network.
UNETS = (
    pytest.param("unet_interp", "fp16", marks=pytest.mark.slow),
    pytest.param("unet_interp", "fp32", marks=pytest.mark.exhaustive),
    pytest.param("unet_t2v", "fp16", marks=pytest.mark.exhaustive),
)
AUTOENCODERS = (("ae3d_244", "fp16"), ("ae2d", "fp32"))
LATENT = LatentFacts(channels=4, size=(1, 1), scale=0.5, shift=1.25)  # the size plays no part
SMALL = PlanOptions(batch=Range(1, 2, 8))


def spec(name, array):
    return TensorSpec(name, str(array.dtype), ("b", *array.shape[1:]))


@pytest.fixture(scope="module")
def exported_autoencoder(golden, golden_autoencoder, tmp_path_factory):
    """Export a part of a golden autoencoder with the pixels and scales of a bundle, once."""

    @cache
    def export(name, precision, part):
        arrays, network = golden(name).arrays, golden_autoencoder(name, precision)
        frames, z = arrays["x"], arrays.get("z", arrays["moments"][:, :4])
        if frames.ndim == 4:  # images, where a bundle has clips of one frame
            frames, z = frames[:, :, None], z[:, :, None]
        latents = (spec("latents", z),)
        pixels = (spec("frames", np.moveaxis(frames, 1, -1).astype(np.uint8)),)  # (b, f, h, w, 3)
        if part == "encoder":
            graph = Graph(EncoderGraph(network, LATENT), pixels, latents)
        else:
            graph = Graph(DecoderGraph(network, LATENT), latents, (*pixels, MEAN))
        path = tmp_path_factory.mktemp("autoencoder") / f"{part}.onnx"
        write_onnx(graph, path)
        return graph, path

    return export


def compiled(graph, path, precision):
    facts = GraphFacts(path.name, "0" * 64, precision, graph.inputs, graph.outputs)
    job = CompileJob("graph", path, facts, ({"b": Range(1, 8, 32)},), PlanOptions())
    return compile_plan(job, load_library("tensorrt-rtx"))


@pytest.mark.parametrize(("name", "precision"), UNETS)
def test_a_golden_denoiser_compiles_with_dynamic_batch(exported_denoiser, name, precision):
    exported = exported_denoiser(name, precision)
    assert compiled(exported.graph, exported.path, precision).nbytes > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize(("name", "precision"), AUTOENCODERS)
def test_a_golden_autoencoder_compiles_with_dynamic_batch(
    exported_autoencoder, name, part, precision
):
    graph, path = exported_autoencoder(name, precision, part)
    assert compiled(graph, path, precision).nbytes > 100_000


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", list(builtin_bundles()))
def test_every_builtin_bundle_compiles_and_is_not_compiled_twice(name, tmp_path):
    shutil.copytree(builtin_bundles()[name], tmp_path / name)
    bundle = load_bundle(tmp_path / name)
    built = build_plans(bundle, "tensorrt-rtx", SMALL)
    assert [b.graphs for b in built] == graph_files(bundle.manifest)
    assert all(b.plan.read() for b in built)
    assert all(b.reused for b in build_plans(bundle, "tensorrt-rtx", SMALL))
