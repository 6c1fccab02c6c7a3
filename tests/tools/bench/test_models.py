"""The models that speed is measured with."""

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

    monkeypatch.setattr(models, "build", build)
    monkeypatch.setattr(models, "load_bundle", lambda folder: folder)
    tiny = models.sizes("tiny")
    wider = dataclasses.replace(tiny, unet=dataclasses.replace(tiny.unet, model_channels=64))
    for sizes in (tiny, tiny, wider):
        monkeypatch.setattr(models, "sizes", lambda name, sizes=sizes: sizes)
        models.bundle_of("tiny", "fp32", tmp_path, str)
    monkeypatch.setattr(models.metadata, "version", lambda package: "99")
    models.bundle_of("tiny", "fp32", tmp_path, str)
    assert len(built) == len(set(built)) == 3
    assert all(name.startswith("tiny-fp32-") for name in built)
