"""A bundle of the paper's sizes with random weights: a predictor, verified, and a decoder."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from lvdm_engines.bundle import file_sha256
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.manifest import GraphFacts, Manifest, Provenance
from lvdm_export.config.model_facts import model_facts
from lvdm_export.graph.export import ExportTarget, export_graph
from lvdm_export.graph.graphs import decoder_graph, denoiser_graph
from lvdm_export.graph.onnx_file import write_onnx
from lvdm_export.nets.layers import bake
from lvdm_tools.bench.clock import Found
from lvdm_tools.bench.models import networks, sizes


def export(model: str, out: Path, report: Callable[[str], None]) -> Found:
    """Export one of the ready models; returns how long the predictor took, torch check included."""
    # the exporter misses torchvision, we do not
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    denoiser, autoencoder = sizes(model).records()
    facts = model_facts({"predict": denoiser}, autoencoder)
    unet, decoder = networks(sizes(model))
    started = time.monotonic()
    with BundleWriter(out) as writer:
        target = ExportTarget(writer.path, facts, "fp32", report)
        graph = denoiser_graph(unet, ("predict",), facts)
        del unet
        exported = export_graph(target, graph, ("predict",))
        seconds = time.monotonic() - started
        report("decoder: exporting to ONNX, unverified")
        graph, file = decoder_graph(decoder, facts), writer.path / "decoder.onnx"
        bake(graph.module)
        write_onnx(graph, file)
        other = GraphFacts(file.name, file_sha256(file), "fp32", graph.inputs, graph.outputs)
        provenance = Provenance(exported.facts.sha256, ema=False, lvdm_rt="unknown")
        graphs = {"predict": exported.facts, "decoder": other}
        writer.finish(Manifest(name=model, model=facts, graphs=graphs, provenance=provenance))
    return {"seconds": seconds, **exported.parity["predict"]}
