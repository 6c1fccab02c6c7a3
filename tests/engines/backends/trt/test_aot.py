"""Every graph that we export compiles in TensorRT-RTX, which needs no GPU to do so.

TensorRT reads ONNX with the same parser. What the plans compute is for `lvdm-tools gpu-check`.
"""

import shutil
from functools import cache

import numpy as np
import onnx
import pytest

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
torch = pytest.importorskip("torch")

from onnx import numpy_helper

from lvdm_engines.backends.plan_facts import PlanOptions, Range
from lvdm_engines.backends.trt.build import build_plans
from lvdm_engines.backends.trt.compile import CompileJob, compile_plan
from lvdm_engines.backends.trt.library import load_library
from lvdm_engines.backends.trt.profiles import graph_files, profiles_for, split
from lvdm_engines.bundle import builtin_bundles, load_bundle
from lvdm_engines.contract import MEAN
from lvdm_engines.manifest import GraphFacts, LatentFacts, TensorSpec
from lvdm_export.graph.graphs import (
    DecoderGraph,
    EncoderGraph,
    Graph,
    decoder_graph,
    denoiser_graph,
    encoder_graph,
)
from lvdm_export.graph.onnx_file import write_onnx
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.layers import bake, to_half
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig
from lvdm_tools.train import config as configs
from lvdm_tools.train.networks import network_config

UNETS = ("unet_short", "unet_pred", "unet_interp", "unet_t2v")
AUTOENCODERS = ("ae3d_488", "ae3d_244", "ae2d")
WIDE = (Range(1, 8, 32),)
QUICK = {*((n, p) for n in ("ae3d_244", "ae2d") for p in ("fp32", "fp16"))}
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


def cases(names):
    """Exporting and compiling a denoiser takes about 25 s; most of them are marked slow."""
    return [
        pytest.param(n, p, marks=[] if (n, p) in QUICK else [pytest.mark.slow])
        for n in names
        for p in ("fp32", "fp16")
    ]


def compiled(graph, path, precision, batches=WIDE):
    facts = GraphFacts(path.name, "0" * 64, precision, graph.inputs, graph.outputs)
    profiles = tuple({"b": batch} for batch in batches)
    job = CompileJob("graph", path, facts, profiles, PlanOptions())
    return compile_plan(job, load_library("tensorrt-rtx"))


@pytest.mark.parametrize(("name", "precision"), cases(UNETS))
def test_every_golden_denoiser_compiles_with_dynamic_batch(exported_denoiser, name, precision):
    exported = exported_denoiser(name, precision)
    assert compiled(exported.graph, exported.path, precision).nbytes > 100_000


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize(("name", "precision"), cases(AUTOENCODERS))
def test_every_golden_autoencoder_compiles_with_dynamic_batch(
    exported_autoencoder, name, part, precision
):
    graph, path = exported_autoencoder(name, precision, part)
    assert compiled(graph, path, precision).nbytes > 100_000


def test_a_wide_batch_range_compiles_as_several_profiles(exported_autoencoder):
    graph, path = exported_autoencoder("ae2d", "fp16", "encoder")
    one = compiled(graph, path, "fp16")
    several = compiled(graph, path, "fp16", split(Range(1, 8, 32)))
    assert several.nbytes > one.nbytes


@pytest.mark.parametrize("name", list(builtin_bundles()))
def test_every_builtin_bundle_compiles_and_is_not_compiled_twice(name, tmp_path):
    shutil.copytree(builtin_bundles()[name], tmp_path / name)
    bundle = load_bundle(tmp_path / name)
    built = build_plans(bundle, "tensorrt-rtx", SMALL)
    assert [b.graphs for b in built] == graph_files(bundle.manifest)
    assert all(b.plan.read() for b in built)
    assert all(b.reused for b in build_plans(bundle, "tensorrt-rtx", SMALL))


def builtin_half(name, names):
    """A graph of a built-in bundle in half precision, with the weights that its file has by name.

    The exporter folded the others (linear layers, mostly) into constants of no name; those stay as
    initialised. Returns the share of what was found, too.
    """
    bundle = load_bundle(builtin_bundles()[name])
    model = bundle.manifest.model
    if names[0] in ("encoder", "decoder"):
        run = configs.load(configs.find(f"{name}-autoencoder"), "autoencoder")
        network = Autoencoder3d(network_config(Autoencoder3dConfig, run.network))
        graph = (encoder_graph if names[0] == "encoder" else decoder_graph)(network, model)
    else:
        run = configs.load(configs.find(name), "diffusion")
        network = UNet3d(network_config(UNet3dConfig, run.network))
        graph = denoiser_graph(network, names, model)
    facts = bundle.manifest.graphs[names[0]]
    assert graph.inputs == facts.inputs
    bake(to_half(graph.module))
    stored = onnx.load(bundle.path / facts.file).graph.initializer
    weights = {w.name.removesuffix("_half"): np.array(numpy_helper.to_array(w)) for w in stored}
    found = 0
    with torch.no_grad():
        # some layers have one tensor under two names, of which the file has one
        for key, parameter in graph.module.named_parameters(remove_duplicate=False):
            if key in weights and weights[key].shape == parameter.shape:
                parameter.copy_(torch.from_numpy(weights[key]))
                found += parameter.numel()
    return graph, found / facts.parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "names"),
    [
        pytest.param(name, names, id=f"{name}-{names[0]}")
        for name, folder in builtin_bundles().items()
        for names in graph_files(load_bundle(folder).manifest)
    ],
)
def test_every_builtin_graph_compiles_in_half_precision_too(name, names, tmp_path, quick_rules):
    graph, share = builtin_half(name, names)
    assert share > 0.7
    manifest = load_bundle(builtin_bundles()[name]).manifest
    path = tmp_path / f"{names[0]}.onnx"
    clips = [getattr(getattr(manifest.model, n, None), "clip", 0) for n in names]
    write_onnx(graph, path, clip=max(clips) or None)
    facts = GraphFacts(path.name, "0" * 64, "fp16", graph.inputs, graph.outputs)
    profiles = profiles_for(manifest, names, SMALL)[:1]  # the bundle itself compiles with them all
    job = CompileJob(names[0], path, facts, profiles, SMALL)
    assert compile_plan(job, load_library("tensorrt-rtx")).nbytes > 100_000
