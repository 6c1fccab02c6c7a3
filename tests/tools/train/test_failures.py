"""What ends a run early: NaN, a full disk, no memory, a locked folder, a signal."""

import errno
import os
import signal
from unittest.mock import Mock

import pytest
import torch
import yaml
from toy_damage import copied
from toy_runs import AUTOENCODER, changed, train

from lvdm_engines.errors import CheckpointError, TrainingError
from lvdm_tools import cli
from lvdm_tools.train import state
from lvdm_tools.train.diffusion import latents
from lvdm_tools.train.learner import Learner

DISK_FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def step_of_good_checkpoint(run):
    tensors, meta = state.load(run / "state.safetensors")
    assert all(t.isfinite().all() for t in tensors.values())
    return meta["step"]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch
):
    out = tmp_path / "run"
    update = Learner.update

    def poisoned(self, loss, step):
        return update(self, loss * (float("nan") if step == 4 else 1.0), step)

    monkeypatch.setattr(Learner, "update", poisoned)
    with pytest.raises(
        TrainingError, match=r"at step 5 the loss is nan.*checkpoint of step 4 is kept"
    ):
        train(AUTOENCODER, out)
    assert step_of_good_checkpoint(out) == 4


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    out = tmp_path / "run"
    save = state.save_file

    def full(tensors, path, metadata=None):
        save(tensors, path, metadata=metadata)
        if (out / "state.safetensors").exists():
            raise DISK_FULL

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(TrainingError, match=r"the disk is full while writing .*make room"):
        train(AUTOENCODER, out)
    assert step_of_good_checkpoint(out) == 2
    assert not list(out.glob(".*.partial"))


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(tmp_path, monkeypatch):
    out, follow = tmp_path / "run", Learner._follow

    def blown_up(self, step):
        with torch.no_grad():
            next(self.network.parameters())[0] = float("inf") if step == 3 else 0.0
        follow(self, step)

    monkeypatch.setattr(Learner, "_follow", blown_up)
    with pytest.raises(
        TrainingError, match=r"after step 4 .* NaN or infinity: stopped; the checkpoint of step 2"
    ):
        train(changed(AUTOENCODER, {"every.sample": 4}), out)
    assert step_of_good_checkpoint(out) == 2
    assert not list((out / "samples").iterdir())  # of such weights


@pytest.mark.parametrize("moment", ["exp_avg_sq", "step"])
def test_a_moment_that_no_optimizer_writes_is_refused(moment, autoencoder, tmp_path):
    run = copied(autoencoder, tmp_path / "run")
    tensors, meta = state.load(run / "state.safetensors")
    name = next(name for name in tensors if name.endswith(f".{moment}"))
    state.save(run / "state.safetensors", tensors | {name: -tensors[name] - 1}, meta)
    with pytest.raises(CheckpointError, match=rf"{moment} holds a number below 0"):
        train(changed(AUTOENCODER, {"steps": 10}), run, resume=True)


NO_ROOM = r"the disk is full while writing .*{}; nothing was written: make room, "


@pytest.mark.parametrize(
    ("writing", "told", "resume"),
    [
        ("pathlib.Path.write_text", NO_ROOM.format("") + "then start again", False),
        ("lvdm_tools.train.model_json.save_model", NO_ROOM.format(r"model\.safetensors"), True),
    ],
)
def test_a_disk_that_is_full_is_named_with_what_to_do(tmp_path, monkeypatch, writing, told, resume):
    with monkeypatch.context() as patch:
        patch.setattr(writing, Mock(side_effect=DISK_FULL))
        with pytest.raises(TrainingError, match=told):
            train(AUTOENCODER, tmp_path / "run")
    train(AUTOENCODER, tmp_path / "run", resume=resume)


@pytest.mark.slow
def test_a_signal_while_encoding_stops_within_a_clip_and_tells_how_to_go_on(
    tiny_denoiser, capsys, monkeypatch, tmp_path
):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tiny_denoiser))
    places = ["--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]
    command = ["train", "diffusion", "--data", "synth", "-q", *places]
    encode, seen = latents.encode_sequence, []

    def interrupting(*sequence):
        seen.append(sequence)
        os.kill(os.getpid(), signal.SIGINT)
        return encode(*sequence)

    monkeypatch.setattr(latents, "encode_sequence", interrupting)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert cli.run(command) == 130
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert len(seen) == 1
    assert "what is finished is kept; go on with: lvdm-tools" in capsys.readouterr().err
    monkeypatch.undo()
    assert cli.run([*command, "--resume"]) == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
