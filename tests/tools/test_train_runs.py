"""Whole runs of tiny networks: resume, stop, refusals."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import msgspec
import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from lvdm_engines.errors import ConfigError, LvdmError, TrainingError
from lvdm_export.record import read_record
from lvdm_tools import cli
from lvdm_tools.train import config, latents, loop, start, state
from lvdm_tools.train.learner import Learner

TINY_AUTOENCODER = {
    "kind": "autoencoder",
    "name": "tiny",
    "seed": 1,
    "steps": 9,
    "batch": 2,
    "network": {"n_hiddens": 4, "downsample": [4, 8, 8], "norm_groups": 4},
    "data": {"size": [16, 16], "frames": 4},
    "optimizer": {"learning_rate": 1e-3, "warmup": 2},
    "loss": {"mse": 1.0, "l1": 0.2, "adversarial": {"start": 4, "channels": 8, "layers": 2}},
    "ema": 0.9,
    "device": {"accelerator": "cpu", "threads": 1},
    "every": {"log": 3, "checkpoint": 2, "sample": 100},
}
TINY_DENOISER = {
    "kind": "diffusion",
    "name": "tiny",
    "seed": 1,
    "steps": 6,
    "batch": 2,
    "autoencoder": "autoencoder",
    "network": {
        "in_channels": 5,
        "model_channels": 8,
        "num_res_blocks": 1,
        "channel_mult": [1],
        "attention_resolutions": [1],
        "num_heads": 2,
        "temporal_length": 3,
        "num_classes": 251,
        "norm_groups": 4,
    },
    "data": {"size": [16, 16], "frames": 16, "sequences": 3},
    "clips": [
        {"kind": "predict", "latents": 2, "stride": 2, "probability": 0.5},
        {"kind": "interpolate", "latents": 3, "probability": 0.5},
        {"kind": "unconditional", "latents": 3, "probability": 0.5},
    ],
    "optimizer": {"learning_rate": 1e-3},
    "ema": 0.9,
    "device": {"accelerator": "cpu", "threads": 1},
    "every": {"log": 3, "checkpoint": 2, "sample": 100},
}


def changed(settings, path, value):
    """Return a deep copy with one field (a dotted path) set."""
    copy = json.loads(json.dumps(settings))
    *parents, last = path.split(".")
    inner = copy
    for parent in parents:
        inner = inner[int(parent) if parent.isdigit() else parent]
    inner[last] = value
    return copy


def train(settings, out, *, resume=False, report=lambda _: None, data="synth"):
    run = config.parse(settings, settings["kind"], "test")
    return start.start(start.Request(run, data, out, report, resume))


def interrupted(settings, out, at):
    """Train until the log line of step `at`, then stop as a signal would."""
    run = config.parse(settings, settings["kind"], "test")
    stop = threading.Event()

    def report(record):
        if record["step"] >= at and "phase" not in record:
            stop.set()

    return start.start(start.Request(run, "synth", out, report, stop=stop))


def same_files(one, other):
    """Compare weights, optimizer, averages and losses of two runs, bit for bit."""
    a, b = load_file(one / "state.safetensors"), load_file(other / "state.safetensors")
    assert a.keys() == b.keys()
    assert all(a[name].equal(b[name]) for name in a)
    assert losses(one) == losses(other)
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, other)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def losses(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines]


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """Return an uninterrupted autoencoder run."""
    out = tmp_path_factory.mktemp("whole") / "autoencoder"
    train(TINY_AUTOENCODER, out)
    return out


@pytest.fixture(scope="module")
def denoiser_settings(autoencoder):
    return changed(TINY_DENOISER, "autoencoder", str(autoencoder))


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory, denoiser_settings):
    out = tmp_path_factory.mktemp("whole") / "denoiser"
    train(denoiser_settings, out)
    return out


def test_an_autoencoder_run_leaves_model_log_curves_and_samples(autoencoder):
    record = read_record(autoencoder / "model" / "model.json")
    assert (record.kind, record.latent_size, record.ema) == ("autoencoder3d", (2, 2), True)
    assert (autoencoder / "curves.png").stat().st_size > 1000
    assert {p.name for p in (autoencoder / "samples").iterdir()} == {
        "step-0000009.png",
        "step-0000009.mp4",
    }
    assert [line["step"] for line in losses(autoencoder)] == [3, 6, 9, 9]


def test_a_denoiser_is_described_with_its_clips_and_latent_statistics(denoiser):
    record = read_record(denoiser / "model" / "model.json")
    assert msgspec.to_builtins(record.predict) == {"clip": 2, "condition": 1, "stride": 2}
    assert record.interpolate.clip == record.short.clip == 3
    means = load_file(denoiser / "latents" / "part-00000.safetensors")["means"].double()
    # float32 data, float64 statistics
    assert record.shift == pytest.approx(-means.mean().item(), rel=1e-4)
    assert record.scale == pytest.approx(1 / means.std(correction=0).item(), rel=1e-4)


def test_a_stopped_autoencoder_run_resumes_to_the_same_weights(autoencoder, tmp_path):
    reached = interrupted(TINY_AUTOENCODER, tmp_path / "run", at=3)
    assert reached < 9
    train(TINY_AUTOENCODER, tmp_path / "run", resume=True)
    same_files(autoencoder, tmp_path / "run")


def test_a_stopped_denoiser_run_resumes_to_the_same_weights(denoiser, denoiser_settings, tmp_path):
    assert interrupted(denoiser_settings, tmp_path / "run", at=3) < 6
    train(denoiser_settings, tmp_path / "run", resume=True)
    same_files(denoiser, tmp_path / "run")


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    settings = changed(TINY_AUTOENCODER, "steps", 40)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def command(out, *more):
        call = "from lvdm_tools.cli import main; main()"
        options = ["--config", str(tmp_path / "c.yaml"), "--data", "synth", "--out", str(out)]
        return [sys.executable, "-c", call, "train", "autoencoder", "-q", *options, *more]

    with subprocess.Popen(command(killed)) as process:
        deadline = time.monotonic() + 60
        while not (killed / "log.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(float(np.random.default_rng().uniform(0, 0.3)))
        process.send_signal(signal.SIGKILL)
    if process.returncode != -signal.SIGKILL:
        pytest.skip("the run was over before it could be killed")
    # killed before the first checkpoint or after: both resume
    subprocess.run(command(killed, "--resume"), check=True)
    train(settings, whole)
    same_files(whole, killed)


def test_latents_are_encoded_once_and_again_only_for_other_data(
    denoiser, denoiser_settings, tmp_path
):
    out = tmp_path / "run"
    phases = []
    train(denoiser_settings, out, report=lambda r: phases.append(r.get("phase")))
    assert phases.count("encode") == 1
    made = (out / "latents" / "part-00000.safetensors").stat().st_mtime_ns
    train(changed(denoiser_settings, "steps", 7), out, resume=True)
    assert (out / "latents" / "part-00000.safetensors").stat().st_mtime_ns == made
    header = state.read_header(out / "latents" / "part-00000.safetensors")
    assert not latents._is_current(out / "latents" / "part-00000.safetensors", "another")
    assert latents._is_current(out / "latents" / "part-00000.safetensors", header["fingerprint"])


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
        train(TINY_AUTOENCODER, out)
    tensors, meta = state.load(out / "state.safetensors")
    assert meta["step"] == 4
    assert all(t.isfinite().all() for t in tensors.values())


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    out = tmp_path / "run"
    save = state.save_file

    def full(tensors, path, metadata=None):
        save(tensors, path, metadata=metadata)
        if (out / "state.safetensors").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(TrainingError, match=r"the disk is full while writing .*make room"):
        train(TINY_AUTOENCODER, out)
    assert state.load(out / "state.safetensors")[1]["step"] == 2
    assert not list(out.glob("*.draft"))


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("seed", 2, "seed: 2 here, 1 there"),
        ("network.n_hiddens", 8, r"network\.n_hiddens: 8 here, 4 there"),
        ("optimizer.learning_rate", 2e-3, r"optimizer\.learning_rate"),
        ("loss.adversarial", None, r"loss\.adversarial"),
    ],
)
def test_a_resume_with_another_config_names_the_field(autoencoder, field, value, named):
    with pytest.raises(TrainingError, match=named):
        train(changed(TINY_AUTOENCODER, field, value), autoencoder, resume=True)


def test_a_run_is_neither_overwritten_nor_resumed_from_nothing(autoencoder, tmp_path):
    with pytest.raises(TrainingError, match="already holds a run: pass --resume"):
        train(TINY_AUTOENCODER, autoencoder)
    with pytest.raises(TrainingError, match="holds no run to resume"):
        train(TINY_AUTOENCODER, tmp_path, resume=True)
    with pytest.raises(TrainingError, match="already at step 9 of 9"):
        train(TINY_AUTOENCODER, autoencoder, resume=True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("stepz", 3, "unknown field `stepz`"),
        ("optimizer.rate", 3, r"unknown field `rate` - at `\$\.optimizer`"),
        ("network.width", 3, "network has the unknown field width"),
        ("network.downsample", [4, 8, 3], "powers of two"),
        ("steps", 0, "steps is 0, expected more than 0"),
        ("ema", 1.5, "ema is 1.5, expected between 0 and 1"),
        ("data.size", [16, 20], "width 20 is not divisible"),
        ("data.frames", 6, "frames 6 is not divisible"),
        ("device.accelerator", "abacus", "device 'abacus' cannot be used"),
    ],
)
def test_an_impossible_autoencoder_config_is_refused_with_the_field(
    field, value, message, tmp_path
):
    with pytest.raises((ConfigError, TrainingError), match=message):
        train(changed(TINY_AUTOENCODER, field, value), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clips.0.stride", 4, r"clips\[0\] \(predict\) spans 5 latents, .* to 20"),
        ("clips.1.latents", 2, r"clips\[1\] \(interpolate\) needs at least 3 latents"),
        ("network.in_channels", 4, r"need a mask: network\.in_channels 5"),
        ("network.num_classes", 10, r"num_classes is 10: raise it to 251"),
        ("noise_levels", 2000, "noise_levels is 2000, expected 0..1000"),
        ("autoencoder", "nowhere", "nowhere holds no trained autoencoder"),
        ("data.window", 6, r"data\.window is 6, expected a multiple"),
    ],
)
def test_an_impossible_denoiser_config_is_refused_with_the_field(
    field, value, message, denoiser_settings, tmp_path
):
    with pytest.raises(LvdmError, match=message):
        train(changed(denoiser_settings, field, value), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_data_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(TrainingError, match="holds no readable video"):
        train(TINY_AUTOENCODER, tmp_path / "run", data=str(tmp_path / "data"))


def test_a_config_of_the_other_kind_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TINY_AUTOENCODER))
    with pytest.raises(ConfigError, match="describes an autoencoder run, not diffusion"):
        config.load(tmp_path / "c.yaml", "diffusion")


def test_every_ready_config_can_be_read():
    names = [path.stem for path in config.find("sky-tiny").parent.glob("*.yaml")]
    assert {"sky-predict", "taichi-interpolate", "ucf-short", "toy", "sky-tiny"} <= set(names)
    for name in names:
        kind = "autoencoder" if name.endswith("-autoencoder") else "diffusion"
        config.load(config.find(name), kind)


def test_training_without_perceptual_weights_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, "lvdm_tools")
    train(changed(TINY_AUTOENCODER, "steps", 1), tmp_path / "run")
    assert "no LPIPS weights" in caplog.text


def test_the_command_line_explains_an_error_in_one_line(tmp_path, capsys):
    code = cli.run(
        ["train", "autoencoder", "--config", "nope", "--data", "synth", "--out", str(tmp_path)]
    )
    assert code == 1
    message = capsys.readouterr().err
    assert message.startswith("lvdm-tools: there is no config file nope; the ready configs are")
    assert message.count("\n") == 1


def test_batches_do_not_depend_on_how_far_ahead_they_are_made():
    from lvdm_tools.train.prefetch import prefetch

    assert list(prefetch(lambda step: step * step, 3, 9)) == [9, 16, 25, 36, 49, 64]
    assert loop.Window({"loss": 1.0}, 1).flush() == {"loss": 1.0}
