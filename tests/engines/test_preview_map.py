"""The map from latents to colours in a manifest: there, not there, or of another model."""

import json

import pytest
import toy
from toy_files import python

from lvdm_engines.bundle import builtin_bundles, load_bundle
from lvdm_engines.contract import check_contract
from lvdm_engines.errors import BundleError
from lvdm_engines.manifest_json import format_manifest, parse_manifest
from lvdm_engines.preview_map import PreviewMap

MAP = PreviewMap((127.5, 100.0, 1.25), ((1.0, 2.0, 3.0), (-4.0, 5.0, 6.5)))


def test_a_map_survives_writing_and_reading():
    manifest = toy.manifest(preview=MAP)
    assert parse_manifest(format_manifest(manifest)) == manifest


def test_manifests_of_before_are_read_and_have_none():
    document = json.loads(format_manifest(toy.manifest()))
    del document["preview"]
    assert parse_manifest(json.dumps(document).encode()).preview is None


def test_a_map_of_other_channels_is_refused():
    manifest = toy.manifest(preview=PreviewMap(MAP.bias, MAP.weights * 2))
    message = "got: preview has weights of 4 channels, expected 2; correct it or export"
    with pytest.raises(BundleError, match=message):
        check_contract(manifest, "got")


@pytest.mark.parametrize("name", ["sky-tiny", "sky"])
def test_built_in_models_have_one(name):
    if name not in builtin_bundles():
        pytest.skip(f"this checkout has no {name}")
    manifest = load_bundle(name).manifest
    assert len(manifest.preview.weights) == manifest.model.latent.channels


def test_levels_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match=r"got \[0.0, nan, 0.0\], expected finite levels"):
        PreviewMap((0.0, 0.0, 0.0), ((0.0, float("nan"), 0.0),))


def test_reading_a_map_needs_no_arrays():
    program = "import sys; from lvdm_engines import preview_map; print('numpy' in sys.modules)"
    assert python(program).stdout.strip() == "False"
