"""The models of a GPU check, exported once."""

import dataclasses

import pytest

pytest.importorskip("torch")

from lvdm_tools.bench import models


def test_an_export_is_used_again_only_for_the_same_networks(tmp_path, monkeypatch):
    built = []

    def build(options, report):
        built.append(options.out.name)
        options.out.mkdir()
        (options.out / "manifest.json").touch()

    paths = {"unet": (tmp_path, tmp_path), "autoencoder": (tmp_path, tmp_path)}
    monkeypatch.setattr(models, "_checkpoints", lambda *_: paths)
    monkeypatch.setattr(models, "build", build)
    monkeypatch.setattr(models, "load_bundle", lambda folder: folder)
    size = models.SIZES["tiny"]
    wider = dataclasses.replace(size.unet, model_channels=16)
    for sizes in (size, size, dataclasses.replace(size, unet=wider)):
        monkeypatch.setitem(models.SIZES, "tiny", sizes)
        models.bundle_of("tiny", "fp32", tmp_path, str)
    monkeypatch.setattr(models.metadata, "version", lambda package: "99")
    models.bundle_of("tiny", "fp32", tmp_path, str)
    assert len(built) == len(set(built)) == 3
    assert all(name.startswith("tiny-fp32-") for name in built)
