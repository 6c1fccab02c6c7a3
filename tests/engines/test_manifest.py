import json
import os
import re
from contextlib import nullcontext

import pytest
import toy
from toy_files import python

from lvdm_engines.contract import check_contract
from lvdm_engines.defaults import Defaults
from lvdm_engines.errors import BundleError
from lvdm_engines.manifest import DistilledFacts
from lvdm_engines.manifest_json import format_manifest, parse_manifest


@pytest.fixture
def document():
    return json.loads(format_manifest(toy.manifest()))


def test_a_manifest_survives_writing_and_reading_with_its_defaults_spelled_out(document):
    assert parse_manifest(json.dumps(document).encode()) == toy.manifest()
    assert document["defaults"]["steps"] == 50


def test_a_model_knows_its_downsampling():
    assert toy.model_facts().downsample == (4, 8, 8)


def test_a_student_stands_beside_its_teachers_and_fits_the_defaults():
    student = DistilledFacts(calls=4)
    with pytest.raises(ValueError, match="stands beside the denoisers that it learnt from"):
        toy.model_facts(distilled=student, predict=None, interpolate=None)
    with pytest.raises(ValueError, match="50 steps of sampler distilled, but its student learnt 4"):
        toy.manifest(
            model=toy.model_facts(distilled=student), defaults=Defaults(sampler="distilled")
        )


@pytest.mark.parametrize(("length", "told"), [("t", ""), (5, "got float32 (b, 2, 5, 2, 2)")])
def test_a_student_takes_clips_of_every_length(length, told):
    graph = toy.graph_facts(
        inputs=toy.timed(toy.INPUTS, length), outputs=toy.timed(toy.OUTPUTS, length)
    )
    graphs = {"predict": toy.graph_facts(), "interpolate": toy.graph_facts(), "distilled": graph}
    made = toy.manifest(model=toy.model_facts(distilled=DistilledFacts(4)), graphs=graphs)
    assert made.model.clips("distilled") == {4, 5}
    with pytest.raises(BundleError, match=re.escape(told)) if told else nullcontext():
        check_contract(made, "here")


def test_a_graph_with_external_data_names_both_files():
    files = toy.graph_facts(data_sha256="1" * 64).files
    assert files == {"denoiser.onnx": "0" * 64, "denoiser.onnx.data": "1" * 64}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), 2, "got schema 2, expected 1; upgrade lvdm-rt"),
        (("schema",), 0, "got schema 0, expected 1; export the bundle again"),
        (("extra",), 1, "unknown field `extra`"),
        (("model", "extra"), 1, "unknown field `extra` - at `$.model`"),
        (("model", "decode_window"), 0, r"Expected `int` >= 1 - at `$.model.decode_window`, got 0"),
        (("model", "frame_size"), [16], "length 2 - at `$.model.frame_size`"),
        (("model", "frame_size"), [16, 15], "[16, 15] is not a multiple of latent size [2, 2]"),
        (("model", "schedule", "kind"), "log", "expected one of sqrt-linear, linear, cosine"),
        (("model", "schedule", "beta_end"), 1.5, "got beta_start 0.0015, beta_end 1.5"),
        (("model", "schedule", "beta_end"), 0.5, "what is left of the signal above e^-100"),
        (("model", "schedule", "beta_start"), 1e-30, "expected beta_start from 1e-07 on"),
        (("model", "latent", "scale"), 0, "scale not 0 - at `$.model.latent`"),
        (("model", "predict", "condition"), 4, "condition 4 leaves nothing new in a clip of 4"),
        (("model", "interpolate", "clip"), 4, "expected 5 - at `$.model`"),
        (("model", "predict"), None, "graph 'predict' is present but model.predict is not"),
        (("model", "noise_levels"), 1001, "exceeds the 1000 schedule steps"),
        (
            ("defaults", "sampler"),
            "distilled",
            "sampler distilled, but it has no student",
        ),
        (("defaults", "overlap"), 3, "overlap 3 is more than half of the decode window of 4"),
        (("defaults", "noise_level"), 250, "250 is outside the model's 250 levels"),
        (("defaults", "noise_level"), -2, "Expected `int` >= -1 - at `$.defaults.noise_level`"),
        (("defaults", "sampler"), "euler", "expected one of ddpm, ddim, dpmpp_2m"),
        (("graphs", "predict", "file"), "../x.onnx", "expected a .onnx file inside the bundle"),
        (("graphs", "predict", "file"), "/x.onnx", "expected a .onnx file inside the bundle"),
        (("graphs", "predict", "file"), "x" * 10**6, "expected a .onnx file inside the bundle"),
        (("defaults", "presets"), "x" * 10**6, "Expected `object`, got `str`"),
        (("graphs", "predict", "sha256"), "12", "regex"),
        (("graphs", "sample"), {}, "missing required field"),
        (("preview",), {"bias": [0, 0], "weights": []}, "of length 3 - at `$.preview.bias`"),
        (("model", "predict", "clip"), 2**62, "Expected `int` <= 4096 - at `$.model.predict.clip`"),
        (("model", "schedule", "steps"), 2**62, "Expected `int` <= 1048576"),
        (("model", "frame_size"), [2**40, 2**40], "Expected `int` <= 16384"),
        (("model", "frames_per_latent"), 2**62, "Expected `int` <= 4096"),
        (("model", "frame_size"), [16384, 16384], "one window holds"),
        (("provenance", "checkpoint_sha256"), "12", "got checkpoint_sha256 '12', expected 64 hex"),
        (("provenance", "checkpoint_sha256"), {"predict": "x" * 64}, "expected 64 hex digits"),
        (("defaults", "steps"), 2**62, "Expected `int` <= 1048576"),
        (("defaults", "fps"), 1e-300, "Expected `float` >= 0.1"),
        (("defaults", "fps"), 1e308, "Expected `float` <= 1000"),
        (("name",), "\x1b]0;taken\x07", "Expected `str` matching regex"),
        (("name",), "two\n", "Expected `str` matching regex"),
        (("name",), "x" * 201, "Expected `str` matching regex"),
    ],
)
def test_an_impossible_manifest_is_explained_in_one_line(document, path, value, message):
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(BundleError) as caught:
        parse_manifest(json.dumps(document).encode(), "b/manifest.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("b/manifest.json: ")
    assert len(str(caught.value)) < 400


def test_an_unknown_graph_name_is_refused(document):
    document["graphs"]["sample"] = document["graphs"]["predict"]
    with pytest.raises(BundleError, match="unknown graph 'sample', expected one of encoder"):
        parse_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"schema": "1"}',
        b'{"schema": 1e999}',
        b'{"schema": 1, "name": ' + b"[" * 10_000,
        b"{}",
    ],
    ids=range(8),
)
def test_damaged_json_is_explained_in_one_line(data):
    with pytest.raises(BundleError, match=r"^manifest\.json: .*export the bundle again$"):
        parse_manifest(data)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": 3}, r"Expected `str`, got `int` - at `\$\.name`"),
        ({"parity": {"predict": {"array": object()}}}, "cannot be written as JSON"),
    ],
)
def test_what_could_not_be_read_back_is_refused_before_writing(wrong, message):
    with pytest.raises(BundleError, match=message):
        format_manifest(toy.manifest(**wrong))


def test_a_manifest_is_read_and_forgotten_without_harm_to_memory():
    code = (
        "import gc; from lvdm_engines.bundle import load_bundle\n"
        "bundle = load_bundle('sky-tiny'); del bundle; gc.collect()"
    )
    # checks what is allocated by one and freed by another allocator, as a library once did
    done = python(code, env={**os.environ, "PYTHONDEVMODE": "1"})
    assert done.returncode == 0, done.stderr
