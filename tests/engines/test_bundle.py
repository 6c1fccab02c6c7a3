import os
import shutil
from contextlib import suppress

import onnx
import pytest
from msgspec.structs import replace
from toy_files import edited, names

from lvdm_engines import atomic, lock
from lvdm_engines.bundle import GraphSource, builtin_bundles, file_sha256, load_bundle
from lvdm_engines.bundle_writer import BundleWriter
from lvdm_engines.errors import BundleError


def test_a_bundle_is_read_from_its_directory(make_bundle):
    written = make_bundle()
    assert load_bundle(written.path) == written
    assert load_bundle(str(written.path)) == written


def test_a_built_in_bundle_is_found_by_its_name_alone(make_bundle, tmp_path, monkeypatch):
    written = make_bundle("bundles/tiny")
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    assert list(builtin_bundles()) == ["tiny"]
    assert load_bundle("tiny").manifest == written.manifest
    with pytest.raises(BundleError, match=r"^tinny: got neither .* built-in: tiny$"):
        load_bundle("tinny")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("manifest.json", "cannot be read, expected a bundle's manifest: No such file"),
        ("denoiser.onnx", "file is missing"),
    ],
)
def test_a_missing_file_is_found_when_loading(make_bundle, name, told):
    path = make_bundle().path
    (path / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: {told}"):
        load_bundle(path)


def test_a_model_without_its_graph_is_refused(make_bundle):
    path = make_bundle().path
    with edited(path / "manifest.json") as document:
        del document["graphs"]["interpolate"]
    with pytest.raises(BundleError, match=r"model\.interpolate is present but graph"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("kind", "index", "change", "message"),
    [
        ("inputs", 0, {"shape": ["b", 2, 3, 2, 2]}, "input latents: got float32 (b, 2, 3, 2, 2)"),
        ("inputs", 0, {"shape": [1, 2, 4, 2, 2]}, "expected float32 (b, 2, 4, 2, 2)"),
        ("inputs", 1, {"dtype": "float32"}, "input timestep: got float32 (b), expected int64 (b)"),
        ("inputs", 2, {"name": "masks"}, "input masks is unknown, expected latents, timestep"),
        ("inputs", 3, None, "input noise_level int64 (b) is missing"),
        ("outputs", 0, {"name": "x0"}, "output x0 is unknown, expected eps"),
    ],
)
def test_a_graph_of_the_wrong_shape_is_refused(make_bundle, kind, index, change, message):
    path = make_bundle().path
    with edited(path / "manifest.json") as document:
        specs = document["graphs"]["predict"][kind]
        specs[index : index + 1] = [] if change is None else [specs[index] | change]
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    assert message in str(caught.value)


def test_a_digest_is_computed_anew_when_the_file_changes(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"a")
    first = file_sha256(file)
    file.write_bytes(b"bb")
    assert file_sha256(file) != first


def test_an_existing_bundle_is_not_replaced_unasked(make_bundle):
    make_bundle()
    with pytest.raises(BundleError, match="already exists; choose another directory or pass"):
        make_bundle()


@pytest.mark.parametrize("exchange", [True, False])
def test_force_replaces_a_bundle_and_leaves_nothing_behind(
    make_bundle, tmp_path, monkeypatch, exchange
):
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    old = make_bundle()
    (old.path / "engines").mkdir()
    make_bundle(force=True, external=True)
    assert (old.path / "denoiser.onnx.data").is_file()
    assert not (old.path / "engines").exists()
    assert names(tmp_path) == ["bundle"]


def test_what_a_killed_build_left_goes_and_what_another_is_building_stays(make_bundle, tmp_path):
    killed = tmp_path / ".bundle.0123abcd.partial"
    killed.mkdir()
    (killed / "denoiser.onnx").touch()
    (tmp_path / ".bundle.0123abcd.mine").mkdir()
    with suppress(LookupError), BundleWriter(tmp_path / "bundle", force=True) as other:
        make_bundle()
        assert names(tmp_path) == sorted([".bundle.0123abcd.mine", other.path.name, "bundle"])
        raise LookupError
    assert names(tmp_path) == [".bundle.0123abcd.mine", "bundle"]


def test_a_left_file_goes_and_one_that_another_writes_stays(tmp_path):
    for name in ("0123abcd", "4567abcd"):
        (tmp_path / f".clip.mp4.{name}.partial").touch()
    holder = lock.acquire(tmp_path / ".clip.mp4.4567abcd.partial")
    atomic.remove_leftovers(tmp_path / "clip.mp4")
    lock.release(holder)
    assert names(tmp_path) == [".clip.mp4.4567abcd.partial"]


@pytest.mark.parametrize("named", [False, True])
def test_weights_that_the_manifest_has_no_digest_of_are_refused(make_bundle, tmp_path, named):
    bundle = make_bundle(external=True)
    model = onnx.load(bundle.path / "denoiser.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "other.bin"
    (bundle.path / "denoiser.onnx.data").rename(bundle.path / "other.bin")
    onnx.save(model, bundle.path / "denoiser.onnx")
    facts = bundle.manifest.graphs["predict"]
    facts = replace(facts, sha256=file_sha256(bundle.path / "denoiser.onnx"), data_sha256=None)
    if named:
        (bundle.path / "denoiser.onnx.data").touch()
        empty = file_sha256(bundle.path / "denoiser.onnx.data")
        facts = replace(facts, data_sha256=empty)
    with pytest.raises(BundleError, match=r"keeps weights in 'other\.bin', of which the manifest"):
        GraphSource("predict", facts, bundle.path).verified()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_a_manifest_is_not_waited_for(make_bundle):
    path = make_bundle().path
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")
    with pytest.raises(BundleError, match="it is no ordinary file"):
        load_bundle(path)


def test_the_old_bundle_comes_back_if_the_new_one_cannot_take_its_place(
    make_bundle, tmp_path, monkeypatch
):
    old = make_bundle()
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    real = type(tmp_path).rename

    def fail(path, target):
        if path.name.endswith(".partial"):
            raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", fail)
    with pytest.raises(BundleError, match="cannot be written"):
        make_bundle(force=True, external=True)
    assert load_bundle(old.path).manifest == old.manifest
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": b""},
        {"manifest.json": b'{"name": "a web app", "icons": []}', "index.html": b""},
        {"manifest.json": b"not even JSON"},
        {"engines/a/b/deep.plan": b""},
    ],
    ids=lambda files: next(iter(files)),
)
def test_force_never_replaces_what_is_not_a_bundle(make_bundle, tmp_path, files):
    for name, data in files.items():
        (tmp_path / "bundle" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bundle" / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"holds .*{min(files)}.*, so it is not replaced"):
        make_bundle(force=True)
    for name, data in files.items():
        assert (tmp_path / "bundle" / name).read_bytes() == data


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "engines/0123456789abcdef/model.tar",
        "engines/0123456789abcdef/notes.json",
        "engines/mine/denoiser.plan",
        "predict.onnx.bak",
    ],
)
def test_force_names_the_strange_file_in_a_bundle_and_leaves_all(make_bundle, tmp_path, name):
    stranger = make_bundle().path / name
    stranger.parent.mkdir(parents=True, exist_ok=True)
    stranger.write_bytes(b"mine")
    with pytest.raises(BundleError, match=rf"holds {name}, not of a bundle"):
        make_bundle(force=True)
    assert stranger.read_bytes() == b"mine"


def test_force_replaces_a_damaged_bundle_with_its_plans_and_keeps_its_card(make_bundle):
    old = make_bundle().path
    plans = "engines/0123456789abcdef"
    for name in ("README.md", f"{plans}/denoiser.plan", f"{plans}/denoiser.plan.json"):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_bytes(b"old")
    (old / "denoiser.onnx").unlink()
    new = make_bundle(force=True).path
    assert "engines" not in names(new)
    assert (new / "README.md").read_bytes() == b"old"


def test_a_new_bundle_has_ordinary_permissions(make_bundle, tmp_path):
    (tmp_path / "plain").mkdir()
    assert make_bundle().path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        (ValueError("no"), ValueError, "no"),
        (OSError(28, "No space left"), BundleError, r"new: cannot be written: the disk is full"),
    ],
)
def test_an_interrupted_write_leaves_nothing(tmp_path, error, kind, told):
    def write():
        with BundleWriter(tmp_path / "new") as writer:
            (writer.path / "predict.onnx").write_bytes(b"half")
            raise error

    with pytest.raises(kind, match=told):
        write()
    assert names(tmp_path) == []


def test_an_input_that_cannot_be_read_is_not_blamed_on_the_bundle(tmp_path):
    with pytest.raises(FileNotFoundError), BundleWriter(tmp_path / "new"):
        (tmp_path / "checkpoint.ckpt").read_bytes()


def test_a_writer_that_was_never_finished_is_an_error(tmp_path):
    with pytest.raises(BundleError, match="finish"), BundleWriter(tmp_path / "new"):
        pass
    assert names(tmp_path) == []


def test_a_file_that_differs_from_the_manifest_is_never_published(make_bundle, tmp_path):
    done = make_bundle()
    facts = replace(done.manifest.graphs["predict"], sha256="1" * 64)
    manifest = replace(done.manifest, graphs={"predict": facts, "interpolate": facts})

    def write():
        with BundleWriter(tmp_path / "new") as writer:
            shutil.copy(done.path / "denoiser.onnx", writer.path)
            writer.finish(manifest)

    with pytest.raises(BundleError, match="got sha256"):
        write()
    assert names(tmp_path) == ["bundle"]
