"""A student of few calls: what it is taught, its runs, and what they refuse."""

import dataclasses
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from toy_runs import changed, different, interrupted, model_of, state_of, train

from lvdm_engines.errors import ConfigError, TrainingError
from lvdm_engines.manifest import PredictFacts, ScheduleFacts
from lvdm_export.build import build
from lvdm_export.config.model_json import read_record
from lvdm_export.inputs import BuildOptions, Source
from lvdm_rt import GenerateOptions, Pipeline
from lvdm_rt.diffusion.sampler import SAMPLERS, Process
from lvdm_rt.diffusion.schedule import make_schedule
from lvdm_tools.train.diffusion.distill import Distillation
from lvdm_tools.train.diffusion.task import DiffusionTask

SCHEDULE = make_schedule("sqrt-linear", 1000, 0.0015, 0.0155)
MEAN, STD = 2.0, 0.5  # of the data that the teacher knows


def teacher(x, timestep):
    """The best prediction of the noise in x where clips are normal with MEAN and STD."""
    a = torch.from_numpy(SCHEDULE.alpha_bar).float()[timestep][:, None, None, None, None]
    return (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)


def perfect(distillation):
    """Return eps(x, t) of a student that gives just what it is taught."""

    def eps(x, t):
        rows = torch.full((len(x),), t)
        nothing = torch.zeros(len(x), x.shape[2])
        return distillation.target(teacher, torch.from_numpy(x), rows, nothing).numpy()

    return eps


def sampled(eps, calls):
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 8, 8), np.float32)
    sampler = SAMPLERS["distilled"]
    process = Process(eps=eps, schedule=SCHEDULE, noise=lambda _: pytest.fail("noise"))
    *_, end = sampler.run(process, x, sampler.timesteps(SCHEDULE, calls), 0.0)
    a = float(SCHEDULE.alpha_bar[-1])
    exact = MEAN + STD * (x - a**0.5 * MEAN) / (a * STD**2 + 1 - a) ** 0.5
    return end, np.abs(end - exact).max()


def test_a_student_of_one_teacher_call_each_is_taught_what_the_teacher_says():
    distillation = Distillation(SCHEDULE, 4, 1)
    x = torch.randn(4, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    timestep = torch.from_numpy(distillation.timesteps.copy())
    taught = distillation.target(teacher, x, timestep, torch.zeros(4, 3))
    torch.testing.assert_close(taught, teacher(x, timestep), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_a_perfect_student_ends_where_many_calls_of_the_teacher_end(calls):
    few, far = sampled(lambda x, t: teacher(torch.from_numpy(x), [t] * len(x)).numpy(), calls)
    end, near = sampled(perfect(Distillation(SCHEDULE, calls, 8)), calls)
    assert few.shape == end.shape
    assert near < 0.1 * far


def test_more_calls_of_the_teacher_lead_closer():
    ends = [sampled(perfect(Distillation(SCHEDULE, 2, n)), 2)[1] for n in (1, 2, 4, 8)]
    assert ends == sorted(ends, reverse=True)


def test_given_frames_reach_every_call_of_the_teacher_as_they_are():
    distillation, seen = Distillation(SCHEDULE, 2, 3), []
    x = torch.randn(2, 1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1.0, 0, 0], [0, 0, 0]])

    def watched(z, timestep):
        seen.append(z)
        return teacher(z, timestep)

    distillation.target(watched, x, torch.from_numpy(distillation.timesteps.copy()), mask)
    assert len(seen) == 3
    for z in seen:
        assert torch.equal(z[0, :, 0], x[0, :, 0])
    assert not torch.equal(seen[1][0, :, 1:], x[0, :, 1:])
    assert not torch.equal(seen[1][1], x[1])


def test_more_calls_than_timesteps_are_refused():
    with pytest.raises(ConfigError, match="find too few of the schedule's 10 timesteps"):
        Distillation(make_schedule("sqrt-linear", 10, 0.0015, 0.0155), 4, 4)


@pytest.fixture(scope="module")
def settings(tiny_denoiser, tmp_path_factory):
    """Settings of a student, whose teacher was trained."""
    out = tmp_path_factory.mktemp("distill") / "teacher"
    asked = changed(tiny_denoiser, {"network.prediction": "v", "ema": None})
    train(asked, out)
    student = {"kind": "distill", "start_from": str(out), "calls": 2, "teacher_calls": 2}
    return asked | student


def test_a_student_learns_at_its_own_timesteps_and_its_teacher_stays(
    settings, monkeypatch, tmp_path
):
    seen, tasks = set(), set()
    batch = DiffusionTask.batch

    def watched(self, step):
        made = batch(self, step)
        tasks.add(self)
        seen.update(made["timestep"].tolist())
        return made

    monkeypatch.setattr(DiffusionTask, "batch", watched)
    train(changed(settings, {"steps": 12}), tmp_path / "run")
    assert seen == set(SAMPLERS["distilled"].timesteps(SCHEDULE, 2).tolist())
    (task,) = tasks
    taught = {name: tensor.detach() for name, tensor in task.teacher.named_parameters()}
    before = model_of(Path(settings["start_from"]))
    assert not different(taught, {name: before[name] for name in taught})
    assert different(model_of(tmp_path / "run"), before)


@pytest.mark.slow
def test_a_stopped_student_resumes_to_the_same_weights(settings, tmp_path):
    train(settings, tmp_path / "whole")
    assert interrupted(settings, tmp_path / "run", at=3) < settings["steps"]
    train(settings, tmp_path / "run", resume=True)
    assert not different(state_of(tmp_path / "whole"), state_of(tmp_path / "run"))


def test_a_student_keeps_the_latents_of_its_teacher_and_says_how_many_calls_it_learnt(
    settings, tmp_path
):
    told = read_record(Path(settings["start_from"]) / "model" / "model.json")
    elsewhere = tmp_path / "teacher"
    shutil.copytree(settings["start_from"], elsewhere)
    moved = msgspec.structs.replace(told, scale=0.5, shift=0.25)
    (elsewhere / "model" / "model.json").write_bytes(msgspec.json.encode(moved))
    train(changed(settings, {"steps": 1, "start_from": str(elsewhere)}), tmp_path / "run")
    student = read_record(tmp_path / "run" / "model" / "model.json")
    assert (student.scale, student.shift, student.calls) == (0.5, 0.25, 2)
    assert told.calls is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("noise_levels", 7, "noise_levels 7, expected 250"),
        ("schedule", ScheduleFacts("sqrt-linear", 1000, 0.001, 0.0155), "with schedule"),
        ("calls", 4, "calls 4, expected None"),
        ("scale", None, "without the scale and shift"),
        ("provenance", {"autoencoder_sha256": "0" * 64}, f"autoencoder {'0' * 64}, expected"),
    ],
)
def test_a_teacher_whose_student_could_not_stand_beside_it_is_refused(
    settings, tmp_path, field, value, message
):
    teacher = tmp_path / "teacher"
    shutil.copytree(settings["start_from"], teacher)
    file = teacher / "model" / "model.json"
    other = msgspec.structs.replace(read_record(file), **{field: value})
    file.write_bytes(msgspec.json.encode(other))
    with pytest.raises(ConfigError, match=message):
        train(changed(settings, {"start_from": str(teacher)}), tmp_path / "run")


def test_a_student_without_a_teacher_or_with_another_is_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match="start_from names no teacher"):
        train(changed(settings, {"start_from": None}), tmp_path / "run")
    with pytest.raises(ConfigError, match="prediction v instead of eps"):
        train(changed(settings, {"network.prediction": "eps"}), tmp_path / "run")
    with pytest.raises(ConfigError, match="find too few"):
        train(changed(settings, {"calls": 500}), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
    train(changed(settings, {"steps": 2}), tmp_path / "run")
    other = changed(settings, {"start_from": str(tmp_path / "run")})
    with pytest.raises(TrainingError, match="start_from"):
        train(other, tmp_path / "run", resume=True)


def source(run):
    model = Path(run) / "model"
    return Source(model / "model.json", model / "model.safetensors")


def asked_of(settings, out, **denoisers):
    return BuildOptions(
        denoisers=denoisers,
        autoencoder=Path(settings["autoencoder"], "model", "model.safetensors"),
        out=out,
    )


@pytest.fixture(scope="module")
def student(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "run"
    train(changed(settings, {"steps": 2}), out)
    return out


@pytest.mark.slow
def test_a_bundle_holds_a_student_beside_its_teacher_and_samples_it_by_default(
    settings, student, tmp_path
):
    teacher = source(settings["start_from"])
    roles = {"predict": teacher, "interpolate": teacher, "distilled": source(student)}
    bundle = build(asked_of(settings, tmp_path / "bundle", **roles), print)
    files = {name: graph.file for name, graph in bundle.manifest.graphs.items()}
    assert files["predict"] == files["interpolate"] != files["distilled"]
    defaults = bundle.manifest.defaults
    assert (defaults.sampler, defaults.steps, bundle.manifest.model.calls) == ("distilled", 2, 2)
    calls = []
    with Pipeline.open(bundle, "cpu", on_call=lambda graph, _: calls.append(graph)) as pipeline:
        frames = np.concatenate(list(pipeline.stream(GenerateOptions(frames=24))))
    assert len(frames) == 24
    assert {*calls} == {"predict", "distilled", "decoder"}


def test_students_and_teachers_are_not_taken_for_each_other(settings, student, tmp_path):
    teacher = source(settings["start_from"])

    def refused(message, **denoisers):
        with pytest.raises(ConfigError, match=message):
            build(asked_of(settings, tmp_path / "bundle", **denoisers), print)
        assert not (tmp_path / "bundle").exists()

    refused("describes a student of 2 calls; give it with --distilled", predict=source(student))
    refused("does not say how many calls", predict=teacher, distilled=teacher)
    refused("nothing to export", distilled=source(student))
    other = tmp_path / "other"
    shutil.copytree(student, other)
    file = other / "model" / "model.json"
    moved = msgspec.structs.replace(read_record(file), predict=PredictFacts(5, 1, 2))
    file.write_bytes(msgspec.json.encode(moved))
    refused("the student learnt predict as", predict=teacher, distilled=source(other))
    steps = asked_of(settings, tmp_path / "b", predict=teacher, distilled=source(student))
    with pytest.raises(ConfigError, match="3 steps of sampler distilled, but its student learnt 2"):
        build(dataclasses.replace(steps, sampling={"steps": 3}), print)
