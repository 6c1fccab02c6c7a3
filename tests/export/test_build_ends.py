"""Bundles that exist, fail, are killed, or are stored in half precision."""

import os
import shutil
import signal
import subprocess
import sys
import time

import onnx
import pytest
from toy_checkpoints import quiet

from lvdm_engines.bundle import load_bundle
from lvdm_engines.contract import MEAN
from lvdm_engines.errors import BundleError, ConfigError
from lvdm_export.build import build
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.weights import load_autoencoder
from lvdm_export.config.model_facts import model_facts
from lvdm_export.config.model_json import read_record
from lvdm_export.graph.export import ExportTarget, export_graph
from lvdm_export.graph.graphs import decoder_graph
from lvdm_export.inputs import BuildOptions, Source

pytestmark = pytest.mark.slow


def options(official, out, **changes):
    source = Source(official.config, official.checkpoint)
    return BuildOptions(denoisers={"predict": source}, out=out, **changes)


def test_an_existing_bundle_is_kept_unless_forced(official, bundle):
    before = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match="already exists"):
        build(options(official, bundle.path), quiet)
    assert (bundle.path / "manifest.json").read_bytes() == before


def test_a_failed_export_leaves_nothing_behind_and_keeps_what_was_there(official, tmp_path, bundle):
    shutil.copytree(bundle.path, tmp_path / "old")

    def stop(line):
        if line == "1/14 encoder: reading weights":  # 3 graphs of 4 steps, preview, and hashes
            raise KeyboardInterrupt

    for name, force in (("new", False), ("old", True)):
        with pytest.raises(KeyboardInterrupt):
            build(options(official, tmp_path / name, force=force), stop)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert load_bundle(tmp_path / "old").manifest == bundle.manifest


@pytest.mark.slow
def test_a_killed_export_cleans_up(official, tmp_path):
    command = [sys.executable, "-m", "lvdm_export.cli", "build-engines", "--predict"]
    command += [str(official.config), str(official.checkpoint), "--out", str(tmp_path / "b")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "exporting to ONNX" in line:
                break
        assert [p for p in tmp_path.iterdir() if p.name.startswith(".b.")]
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "lvdm-export: interrupted" in rest
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_weights_can_be_stored_in_half_precision_while_computing_stays_in_float32(ours, tmp_path):
    record = read_record(ours.config)
    described = read_record(ours.config.parent.parent / "autoencoder" / "model.json")
    model = model_facts({"predict": record}, described)
    config = described.network_config()
    weights = open_checkpoint(ours.config.parent.parent / "autoencoder" / "model.safetensors")
    target = ExportTarget(tmp_path, model, "fp32", quiet, weights="fp16")
    graph = decoder_graph(load_autoencoder(config, weights), model)
    exported = export_graph(target, graph, ("decoder",))
    facts = exported.facts
    stored = {w.name: w for w in onnx.load(tmp_path / facts.file).graph.initializer}
    assert {w.data_type for n, w in stored.items() if n.endswith("_half")} == {
        onnx.TensorProto.FLOAT16
    }
    assert facts.precision == "fp32"
    assert exported.parity["decoder"]["max_rel"] <= 1 / 255
    assert facts.outputs[-1] == MEAN


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"noise_level": 4000, "guidance": None}, "noise level 4000 is out of range"),
        ({"text_guidance": 14.0}, "got text guidance for a model that reads no text"),
        ({"overlap": 2}, "got an overlap of 2 latents, but decode windows have 2: expected half"),
    ],
)
def test_a_default_that_the_model_does_not_know_is_refused(ours, tmp_path, sampling, message):
    denoisers = {"predict": Source(ours.config, ours.checkpoint)}
    autoencoder = ours.config.parent.parent / "autoencoder" / "model.safetensors"
    options = BuildOptions(
        denoisers=denoisers,
        out=tmp_path / "bundle",
        autoencoder=autoencoder,
        sampling=sampling,
    )
    with pytest.raises(ConfigError, match=message):
        build(options, quiet)
    assert list(tmp_path.iterdir()) == []
