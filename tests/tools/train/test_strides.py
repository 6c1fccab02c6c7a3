"""One network for keyframes and for neighbouring latents, told how far apart they lie."""

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from toy_runs import changed, train

from lvdm_engines.contract import predicts_neighbours
from lvdm_engines.errors import ConfigError
from lvdm_export.build import build
from lvdm_export.config.model_json import read_record
from lvdm_export.inputs import BuildOptions, Source
from lvdm_rt import GenerateOptions, Pipeline
from lvdm_rt.long.network import Network
from lvdm_tools.train.diffusion.task import DiffusionTask
from lvdm_tools.train.model_json import read_denoiser

CLIPS = [
    {"kind": "predict", "latents": 2, "stride": 2, "probability": 0.5},
    {"kind": "predict", "latents": 2, "stride": 1, "probability": 0.5},
    {"kind": "interpolate", "latents": 3, "probability": 0.5},
]


@pytest.fixture(scope="module")
def settings(tiny_denoiser):
    return changed(tiny_denoiser, {"network.max_stride": 2, "clips": CLIPS})


@pytest.fixture(scope="module")
def trained(tmp_path_factory, settings):
    out = tmp_path_factory.mktemp("strides") / "run"
    train(settings, out)
    return out


def test_each_step_tells_the_stride_of_its_clips(settings, monkeypatch, tmp_path):
    seen = []
    batch = DiffusionTask.batch

    def watched(self, step):
        made = batch(self, step)
        seen.append((made["x"].shape[2], *set(made["stride"].tolist())))
        return made

    monkeypatch.setattr(DiffusionTask, "batch", watched)
    train(changed(settings, {"steps": 20, "ema": None}), tmp_path / "run")
    assert set(seen) == {(2, 2), (2, 1), (3, 1)}


def test_clips_of_two_strides_are_two_different_things_to_the_network(trained):
    network, *_ = read_denoiser(trained)
    assert network.config.max_stride == 2
    x, t = torch.randn(1, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([9])
    mask, level = torch.zeros(1, 2), torch.tensor([-1])
    with torch.no_grad():
        near, far, farther = (
            network(x, t, mask, level, None, torch.tensor([s])) for s in (1, 2, 9)
        )
    assert not torch.equal(near, far)
    assert torch.equal(far, farther)  # the largest that it knows


@pytest.mark.slow
def test_a_video_is_made_in_either_mode_by_the_stride_it_needs(
    trained, settings, monkeypatch, tmp_path, caplog
):
    model = trained / "model"
    source = Source(model / "model.json", model / "model.safetensors")
    bundle = build(
        BuildOptions(
            denoisers={"predict": source, "interpolate": source},
            autoencoder=Path(settings["autoencoder"], "model", "model.safetensors"),
            out=tmp_path / "bundle",
        ),
        print,
    )
    assert predicts_neighbours(bundle.manifest)
    told = []
    call = Network.__call__
    monkeypatch.setattr(
        Network,
        "__call__",
        lambda self, feeds: (
            told.append((self._graph, *set(feeds["stride"].tolist()))),
            call(self, feeds),
        )[1],
    )
    with Pipeline.open(tmp_path / "bundle", "cpu") as pipeline:
        options = GenerateOptions(frames=16, steps=2, mode="hierarchical")
        videos = {}
        for mode, calls in (
            ("hierarchical", {("predict", 2), ("interpolate", 1)}),
            ("autoregressive", {("predict", 1)}),
        ):
            told.clear()
            videos[mode] = np.concatenate([*pipeline.stream(replace(options, mode=mode))])
            assert set(told) == calls
    assert not np.array_equal(*videos.values())
    assert "trained on every" not in caplog.text


def test_a_stride_beyond_the_largest_is_refused(settings, tmp_path):
    with pytest.raises(
        ConfigError, match=r"clips hold a stride of 2, but network\.max_stride is 1"
    ):
        train(changed(settings, {"network.max_stride": 1}), tmp_path / "run")


def test_a_stride_that_is_told_but_not_learnt_is_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match="clips predict at stride 2 only"):
        train(changed(settings, {"clips": [CLIPS[0], CLIPS[2]]}), tmp_path / "run")


def test_the_order_of_clips_does_not_matter(settings, tmp_path):
    train(changed(settings, {"clips": CLIPS[::-1], "steps": 1}), tmp_path / "run")
    assert read_record(tmp_path / "run" / "model" / "model.json").predict.stride == 2
