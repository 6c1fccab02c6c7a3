"""Bundles in the layout of the hub's cache; nothing is fetched in a test."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from toy_files import python

from lvdm_engines.errors import BundleError
from lvdm_engines.hub import fetch_bundle

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHOW = """
import sys
from lvdm_engines.bundle import load_bundle
from lvdm_engines.errors import LvdmError
from lvdm_engines.opening import open_session
try:
    bundle = load_bundle(sys.argv[1])
    with open_session(bundle, "predict", "cpu") as session:
        print(bundle.manifest.name, session.backend, (bundle.path / "engines").exists())
except LvdmError as err:
    print(f"{type(err).__name__}: {err}")
"""


def cached(bundle, cache):
    """Lay a bundle out as the hub's cache does: blobs, and snapshots of links to them."""
    repo = cache / "models--someone--sky"
    snapshot = repo / "snapshots" / COMMIT
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    snapshot.mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(path for path in bundle.iterdir() if path.is_file()):
        shutil.copy(file, repo / "blobs" / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


@pytest.fixture
def show(tmp_path):
    """Open a bundle in a process whose hub is offline."""

    def run(reference):
        home = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
        done = python(SHOW, reference, env=os.environ | home)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("revision", "external"), [("", False), ("@main", True), (f"@{COMMIT}", False)]
)
def test_a_bundle_in_the_cache_is_used_without_a_network(
    make_bundle, tmp_path, show, revision, external
):
    cached(make_bundle(external=external).path, tmp_path / "hub")
    assert show(f"hf://someone/sky{revision}") == "tiny cpu False"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["manifest.json", "denoiser.onnx"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda blob: blob.write_bytes(b"damaged")])
def test_a_fetched_bundle_is_never_to_be_exported_again(make_bundle, tmp_path, show, name, damage):
    snapshot = cached(make_bundle().path, tmp_path / "hub")
    damage((snapshot / name).resolve())
    told = show("hf://someone/sky")
    assert told.startswith("BundleError: ")
    repo = tmp_path / "hub" / "models--someone--sky"
    assert f"delete {repo} to have it fetched again, or ask its owner" in told
    assert "export the bundle again" not in told


def test_what_is_fetched_again_replaces_its_damaged_copy(make_bundle, tmp_path, show):
    """The hub's cache forgot a damaged blob: a second name of it must not stay in use."""
    snapshot = cached(make_bundle(external=True).path, tmp_path / "hub")
    blob = (snapshot / "denoiser.onnx.data").resolve()
    whole = blob.read_bytes()
    blob.write_bytes(b"damaged")
    assert "got sha256" in show("hf://someone/sky")
    blob.unlink()
    blob.write_bytes(whole)
    assert show("hf://someone/sky") == "tiny cpu False"


def test_what_is_not_in_the_cache_is_one_line_when_offline(show):
    told = show("hf://someone/else")
    assert told.startswith("BundleError: hf://someone/else: cannot be fetched (")
    assert "\n" not in told


@pytest.mark.parametrize("reference", ["hf://", "hf://sky", "hf://a/b/c", "hf://a/b@", "hf://a/ b"])
def test_a_reference_of_another_form_is_refused(reference):
    with pytest.raises(BundleError, match=r"expected hf://OWNER/NAME or"):
        fetch_bundle(reference)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match=r"pip install 'lvdm-rt\[hub\]'"):
        fetch_bundle("hf://someone/sky")


def test_compiled_plans_are_never_asked_for(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}

    def snapshot_download(name, **wanted):
        asked.update(wanted, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert fetch_bundle("hf://someone/sky@v1") == tmp_path
    assert (asked["name"], asked["revision"]) == ("someone/sky", "v1")
    kept = ["manifest.json", "tokenizer.json", "decoder.onnx"]
    names = [*kept, "engines/abc/decoder.plan", "engines/abc/a.json"]
    asked_for = huggingface_hub.utils.filter_repo_objects(
        names, allow_patterns=asked["allow_patterns"], ignore_patterns=asked["ignore_patterns"]
    )
    assert list(asked_for) == kept
