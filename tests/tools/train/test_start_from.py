"""Runs that start from the weights of another: weights, latents, and what a resume still needs."""

import json
import shutil

import pytest
from toy_runs import AUTOENCODER, changed, different, model_of, state_of, train

from lvdm_engines.errors import TrainingError
from lvdm_tools import cli
from lvdm_tools.train.diffusion import latents
from lvdm_tools.train.model_json import read_autoencoder, read_denoiser

pytestmark = pytest.mark.slow  # half a minute of training


def encoded_bytes(run):
    return {part.name: part.read_bytes() for part in (run / "latents").iterdir()}


def test_damaged_latents_of_the_run_it_starts_from_are_encoded_again(
    denoiser, tiny_denoiser, tmp_path, caplog
):
    before = shutil.copytree(denoiser, tmp_path / "before")
    part = before / "latents" / "part-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-8])
    settings = changed(tiny_denoiser, {"start_from": str(before), "steps": 1})
    train(settings, tmp_path / "next")
    assert "encoding again" in caplog.text
    assert encoded_bytes(tmp_path / "next") == encoded_bytes(denoiser)


def test_a_run_can_start_from_the_weights_of_another(autoencoder, tmp_path):
    settings = changed(AUTOENCODER, {"start_from": str(autoencoder), "steps": 1})
    settings["optimizer"] = {"learning_rate": 1e-9}  # as good as no step at all
    settings["whiten"] = True
    train(settings, tmp_path / "next")
    network, _, _ = read_autoencoder(tmp_path / "next")
    assert network.decoder.conv_out.weight is network.decoder.conv_out.conv.weight
    settings["whiten"] = False
    train(changed(settings, {"steps": 2}), tmp_path / "next", resume=True)
    before, after = model_of(autoencoder), model_of(tmp_path / "next")
    assert all(before[name].allclose(after[name], atol=1e-7) for name in before)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_denoiser_can_start_from_the_weights_of_another(
    denoiser, tiny_denoiser, tmp_path, prediction
):
    fields = {"start_from": str(denoiser), "network.prediction": prediction, "steps": 1}
    settings = changed(tiny_denoiser, fields)
    settings["optimizer"] = {"learning_rate": 1e-9}  # as good as no step at all
    train(settings, tmp_path / "next")
    before, *_ = read_denoiser(denoiser)
    after, *_ = read_denoiser(tmp_path / "next")
    for name, parameter in before.named_parameters():
        assert parameter.allclose(after.get_parameter(name), atol=1e-6), name


@pytest.fixture
def encoded(monkeypatch):
    """Return a list that grows by (first, last) with every part that is encoded."""
    calls, encode = [], latents._encode_part
    monkeypatch.setattr(
        latents, "_encode_part", lambda *part: calls.append(part[1:]) or encode(*part)
    )
    return calls


def skies(folder, seed):
    words = f"synth --force --clips 3 --frames 20 --size 16 --seed {seed} -o".split()
    assert cli.run([*words, str(folder)]) == 0


def test_latents_of_the_run_it_starts_from_are_taken_over_but_not_those_of_other_videos(
    tiny_denoiser, tmp_path, encoded
):
    data = tmp_path / "data"
    skies(data, seed=1)
    train(changed(tiny_denoiser, {"steps": 1}), tmp_path / "before", data=str(data))
    settings = changed(tiny_denoiser, {"start_from": str(tmp_path / "before"), "steps": 1})
    copied = shutil.copytree(data, tmp_path / "elsewhere")
    encoded.clear()
    train(settings, tmp_path / "same", data=str(copied))
    assert not encoded
    assert encoded_bytes(tmp_path / "same") == encoded_bytes(tmp_path / "before")
    train(changed(settings, {"seed": 2}), tmp_path / "clips", data=str(copied))  # other clips
    assert encoded == [(0, 3)]
    encoded.clear()
    skies(data, seed=2)
    train(settings, tmp_path / "other", data=str(data))
    assert encoded == [(0, 3)]
    assert encoded_bytes(tmp_path / "other") != encoded_bytes(tmp_path / "before")
    with pytest.raises(TrainingError, match=r"source: '3 videos, .*' here, '3 videos, .*' there"):
        train(changed(settings, {"steps": 2}), tmp_path / "same", data=str(data), resume=True)


@pytest.mark.parametrize("kind", ["autoencoder", "denoiser"])
def test_a_resume_needs_the_weights_it_began_with_no_more(request, tiny_denoiser, tmp_path, kind):
    before = shutil.copytree(request.getfixturevalue(kind), tmp_path / "before")
    settings = {"autoencoder": AUTOENCODER, "denoiser": tiny_denoiser}[kind]
    settings = changed(settings, {"start_from": str(before), "optimizer.decay": "constant"})
    train(changed(settings, {"steps": 4}), tmp_path / "whole")
    train(changed(settings, {"steps": 2}), tmp_path / "run")
    shutil.rmtree(before)
    train(changed(settings, {"steps": 4}), tmp_path / "run", resume=True)
    assert not different(state_of(tmp_path / "whole"), state_of(tmp_path / "run"))
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert len(recorded["start_from_sha256"]) == 64


def test_a_resume_does_not_take_other_weights_to_begin_with(autoencoder, tmp_path):
    one = {**AUTOENCODER, "start_from": str(autoencoder), "steps": 1}
    train(one, tmp_path / "run")
    train({**AUTOENCODER, "steps": 1}, tmp_path / "fresh")
    other = str(tmp_path / "fresh")
    for asked in (other, str(tmp_path / "nowhere")):
        with pytest.raises(
            TrainingError, match=rf"started from {autoencoder}, and start_from asks"
        ):
            train({**one, "start_from": asked, "steps": 2}, tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match="was started from no other run"):
        train({**one, "steps": 2}, tmp_path / "fresh", resume=True)
    same = shutil.copytree(autoencoder, tmp_path / "same")
    train({**one, "start_from": str(same), "steps": 2}, tmp_path / "run", resume=True)
    train({**AUTOENCODER, "steps": 3}, tmp_path / "run", resume=True)
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert recorded["start_from"] == str(autoencoder)


def test_a_resume_before_the_first_checkpoint_still_needs_them(autoencoder, tmp_path):
    settings = changed(AUTOENCODER, {"start_from": str(autoencoder), "steps": 1})
    train(settings, tmp_path / "run")
    (tmp_path / "run" / "state.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"start_from_sha256: None here, '.*' there"):
        train(changed(settings, {"start_from": None}), tmp_path / "run", resume=True)
