"""The tokenizer's file in a bundle: there with the text encoder, and as it was exported."""

import numpy as np
import pytest
from toy_files import edited, names
from toy_text import TABLE, tokenizer_json, write_text_bundle

from lvdm_engines.bundle import load_bundle
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.errors import BundleError
from lvdm_engines.opening import open_session


@pytest.fixture
def bundle(tmp_path):
    return write_text_bundle(tmp_path / "bundle")


def test_a_bundle_gives_its_tokenizer_as_it_was_copied(bundle):
    assert load_bundle(bundle.path).tokenizer().read_bytes() == tokenizer_json()


def test_the_text_encoder_of_a_bundle_makes_context_of_tokens(bundle):
    tokens = np.array([[1, 2, 0, 0, 0]])
    with open_session(bundle, "text_encoder", "cpu") as session:
        assert np.array_equal(session.run({"tokens": tokens})["context"], TABLE[tokens])


@pytest.mark.parametrize(
    ("drop", "told"),
    [
        ("tokenizer", "graph 'text_encoder' is present but tokenizer is not"),
        ("text_encoder", "tokenizer is present but graph 'text_encoder' is not"),
    ],
)
def test_a_tokenizer_and_a_text_encoder_come_together(bundle, drop, told):
    with edited(bundle.path / "manifest.json") as document:
        del (document if drop == "tokenizer" else document["graphs"])[drop]
    with pytest.raises(BundleError, match=told):
        load_bundle(bundle.path)


def test_a_missing_tokenizer_is_found_when_loading(bundle):
    (bundle.path / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json: file is missing; export the bundle"):
        load_bundle(bundle.path)


def test_another_tokenizer_is_found_before_it_is_used(bundle):
    (bundle.path / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json: got sha256 .* was replaced"):
        load_bundle(bundle.path).tokenizer()


def test_a_bundle_without_text_has_no_tokenizer_to_give(make_bundle):
    with pytest.raises(BundleError, match="has no tokenizer; take a bundle that was made with"):
        make_bundle().tokenizer()


def test_force_replaces_a_bundle_with_its_tokenizer(bundle, make_bundle):
    make_bundle(force=True)
    assert "tokenizer.json" not in names(bundle.path)


def test_a_tokenizer_beside_a_bundle_without_text_is_somebodys(make_bundle):
    path = make_bundle().path
    (path / "tokenizer.json").write_bytes(b"mine")
    with pytest.raises(BundleError, match=r"holds tokenizer\.json, not of a bundle"):
        make_bundle(force=True)


def test_a_tokenizer_that_differs_from_the_manifest_is_never_published(bundle, tmp_path):
    def write():
        with BundleWriter(tmp_path / "new") as writer:
            for file in bundle.path.iterdir():
                (writer.path / file.name).write_bytes(file.read_bytes())
            (writer.path / "tokenizer.json").write_bytes(b"{}")
            writer.finish(bundle.manifest)

    with pytest.raises(BundleError, match=r"tokenizer\.json: got sha256"):
        write()
    assert not (tmp_path / "new").exists()
