"""Whole runs of tiny networks: what they leave, resume, stops."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
import yaml
from safetensors.torch import load_file
from toy_runs import AUTOENCODER, changed, different, interrupted, model_of, state_of, train

from lvdm_engines.errors import CheckpointError, TrainingError
from lvdm_export.config.model_json import read_record
from lvdm_rt.background import Stop, prefetch
from lvdm_rt.diffusion.schedule import make_schedule
from lvdm_tools.train import loop, state
from lvdm_tools.train.diffusion import latents
from lvdm_tools.train.model_json import read_denoiser


def same_files(one, other):
    """Compare weights, optimizer, averages and losses of two runs, bit for bit."""
    assert not different(state_of(one), state_of(other))
    assert not different(model_of(one), model_of(other))
    assert losses(one) == losses(other)


def losses(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines]


def test_an_autoencoder_run_leaves_model_log_curves_and_samples(autoencoder):
    record = read_record(autoencoder / "model" / "model.json")
    assert (record.kind, record.latent_size, record.ema) == ("autoencoder3d", (2, 2), True)
    assert (autoencoder / "curves.png").stat().st_size > 1000
    samples = {p.name for p in (autoencoder / "samples").iterdir()}
    assert samples == {"step-0000009.png", "step-0000009.mp4"}
    assert [line["step"] for line in losses(autoencoder)] == [3, 6, 9, 9]


def test_a_denoiser_is_described_with_its_clips_and_latent_statistics(denoiser):
    record = read_record(denoiser / "model" / "model.json")
    assert msgspec.to_builtins(record.predict) == {"clip": 2, "condition": 1, "stride": 2}
    assert record.interpolate.clip == record.short.clip == 3
    means = load_file(denoiser / "latents" / "part-00000.safetensors")["means"].double()
    # float32 data, float64 statistics
    assert record.shift == pytest.approx(-means.mean().item(), rel=1e-4)
    assert record.scale == pytest.approx(1 / means.std(correction=0).item(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["autoencoder", "denoiser"])
def test_a_stopped_run_resumes_to_the_same_weights(request, tiny_denoiser, tmp_path, kind):
    settings = {"autoencoder": AUTOENCODER, "denoiser": tiny_denoiser}[kind]
    assert interrupted(settings, tmp_path / "run", at=3) < settings["steps"]
    train(settings, tmp_path / "run", resume=True)
    same_files(request.getfixturevalue(kind), tmp_path / "run")


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    settings = changed(AUTOENCODER, {"steps": 40})
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


def test_a_run_killed_between_its_last_checkpoint_and_its_model_is_completed(autoencoder, tmp_path):
    run = shutil.copytree(autoencoder, tmp_path / "run")
    (run / "model" / "model.json").rename(run / "model" / ".model.json.123")
    assert train(AUTOENCODER, run, resume=True) == 9
    same_files(autoencoder, run)
    assert {p.name for p in (run / "model").iterdir()} == {"model.json", "model.safetensors"}
    written = (run / "model" / "model.safetensors").stat().st_mtime_ns
    assert train(AUTOENCODER, run, resume=True) == 9  # nothing left to do
    assert (run / "model" / "model.safetensors").stat().st_mtime_ns == written
    train(changed(AUTOENCODER, {"decode_window": 3}), run, resume=True)
    assert read_record(run / "model" / "model.json").decode_window == 3


@pytest.mark.slow
def test_samples_may_come_before_the_first_log_line(tiny_denoiser, tmp_path):
    settings = changed(tiny_denoiser, {"every.sample": 1, "steps": 2})
    train(settings, tmp_path / "run")
    assert (tmp_path / "run" / "samples" / "step-0000001-0-predict.png").exists()


@pytest.mark.slow
def test_latents_are_encoded_once_and_again_only_for_other_data(denoiser, tiny_denoiser, tmp_path):
    out = tmp_path / "run"
    phases = []
    train(tiny_denoiser, out, report=lambda r: phases.append(r.get("phase")))
    assert phases.count("encode") == 1
    made = (out / "latents" / "part-00000.safetensors").stat().st_mtime_ns
    train(changed(tiny_denoiser, {"steps": 7}), out, resume=True)
    assert (out / "latents" / "part-00000.safetensors").stat().st_mtime_ns == made
    header = state.read_header(out / "latents" / "part-00000.safetensors")
    assert not latents._is_current(out / "latents" / "part-00000.safetensors", "another")
    assert latents._is_current(out / "latents" / "part-00000.safetensors", header["fingerprint"])


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    run = tmp_path / "run"

    def second(_):
        with pytest.raises(TrainingError, match="is in use by another run"):
            train(AUTOENCODER, run, resume=True)

    train(changed(AUTOENCODER, {"every.log": AUTOENCODER["steps"]}), run, report=second)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "state.safetensors", "log.jsonl"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(denoiser, tiny_denoiser, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(denoiser, run)
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises((CheckpointError, TrainingError), match="it is no ordinary file"):
        train(tiny_denoiser, run, resume=True)


@pytest.mark.slow
def test_training_without_perceptual_weights_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, "lvdm_tools")
    train(changed(AUTOENCODER, {"steps": 1}), tmp_path / "run")
    assert "no LPIPS weights" in caplog.text


def test_batches_do_not_depend_on_how_far_ahead_they_are_made():
    made = prefetch((step * step for step in range(3, 9)), 3, Stop())
    assert list(made) == [9, 16, 25, 36, 49, 64]
    assert loop.Window({"loss": 1.0}, 1).flush() == {"loss": 1.0}


@pytest.mark.slow
def test_whitening_changes_the_model_that_is_written_and_not_the_training(autoencoder, tmp_path):
    train(changed(AUTOENCODER, {"whiten": True}), tmp_path)
    assert not different(state_of(autoencoder), state_of(tmp_path))
    model = model_of(tmp_path)
    assert different(model_of(autoencoder), model) == {n for n in model if "quant_conv" in n}
    train(AUTOENCODER, tmp_path, resume=True)  # a run that is done, asked for its plain latents
    assert not different(model_of(autoencoder), model_of(tmp_path))


@pytest.mark.slow
def test_a_denoiser_that_predicts_v_learns_v_and_keeps_its_schedule(tiny_denoiser, tmp_path):
    settings = changed(tiny_denoiser, {"network.prediction": "v", "batch": 8})
    records = []
    train(changed(settings, {"every.log": 1}), tmp_path / "run", report=records.append)
    first = next(r for r in records if r["step"] == 1 and "loss" in r)
    # a new network gives v = 0, and v of normalised latents has a mean square of 1
    assert first["loss"] == pytest.approx(1, abs=0.3)
    network, *_ = read_denoiser(tmp_path / "run")
    schedule = make_schedule("sqrt-linear", 1000, 0.0015, 0.0155)
    np.testing.assert_allclose(network.velocity.alpha_bar, schedule.alpha_bar, rtol=1e-6)
