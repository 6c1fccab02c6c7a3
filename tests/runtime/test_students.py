"""A student beside its teachers: which network makes which clip, and what may be asked of it."""

import numpy as np
import pytest
from msgspec.structs import replace
from toy_arrays import DEFAULTS, MODEL, make_manifest, make_sessions, videos_of

from lvdm_engines.defaults import Preset
from lvdm_engines.errors import OptionsError
from lvdm_engines.manifest import DistilledFacts
from lvdm_rt import GenerateOptions, Pipeline
from lvdm_rt.diffusion.schedule import few_timesteps, karras_timesteps
from lvdm_rt.long.sampling import schedule_of
from lvdm_rt.options import resolve
from lvdm_rt.presets import presets_of

CALLS = 3


@pytest.fixture
def manifest():
    defaults = replace(DEFAULTS, sampler="distilled", steps=CALLS)
    return make_manifest(replace(MODEL, distilled=DistilledFacts(CALLS)), defaults)


def watch(session, timesteps):
    """Keep the timesteps at which a session is called."""
    compute = session.compute

    def watched(**feeds):
        timesteps.update(feeds["timestep"].tolist())
        return compute(**feeds)

    session.compute = watched


def rows_of(sessions):
    """How many clips each denoiser was given, guidance included."""
    names = ("predict", "interpolate", "short", "distilled")
    return {name: sum(sessions[name].rows) for name in names if sessions[name].rows}


def test_a_student_makes_all_clips_but_those_that_go_on_from_each_other(pipeline, sessions):
    seen = {"distilled": set(), "predict": set()}
    for name, timesteps in seen.items():
        watch(sessions[name], timesteps)
    (video,) = videos_of(pipeline, GenerateOptions(frames=60, refine=0)).values()
    drafts = sum(sessions["distilled"].rows)
    (refined,) = videos_of(pipeline, GenerateOptions(frames=60, refine=1)).values()
    assert sum(sessions["distilled"].rows) > 2 * drafts
    assert rows_of(sessions).keys() == {"distilled", "predict"}
    schedule = schedule_of(MODEL)
    assert seen["distilled"] == set(few_timesteps(schedule, CALLS).tolist())
    assert seen["predict"] == set(karras_timesteps(schedule, 2 * CALLS).tolist())
    assert not np.array_equal(refined, video)


def test_keyframes_are_those_of_the_teacher_alone(pipeline):
    student = GenerateOptions(frames=60, refine=0)
    teacher = GenerateOptions(frames=60, refine=0, sampler="dpmpp_2m", steps=2 * CALLS)
    few, many = (
        np.concatenate([chunk.latents for chunk in pipeline.sample_latents(options)], axis=1)
        for options in (student, teacher)
    )
    np.testing.assert_array_equal(few[:, ::4], many[:, ::4])
    assert not np.array_equal(few, many)


def test_a_video_of_predicted_clips_alone_is_the_teachers(pipeline, sessions):
    asked = GenerateOptions(frames=40, mode="autoregressive")
    settings = resolve(asked, pipeline.manifest)
    assert (settings.sampler, settings.steps) == ("dpmpp_2m", 2 * CALLS)
    videos_of(pipeline, asked)
    assert rows_of(sessions).keys() == {"predict"}


def test_a_student_refines_by_its_last_call_alone(manifest):
    assert manifest.defaults.refine == 2
    assert resolve(GenerateOptions(), manifest).refine == 1
    assert resolve(GenerateOptions(refine=0), manifest).refine == 0
    with pytest.raises(OptionsError, match="got refine 2, expected a whole number from 0 to 1"):
        resolve(GenerateOptions(refine=2), manifest)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "ddpm"])
def test_other_samplers_and_presets_keep_to_the_teacher(pipeline, sessions, sampler):
    options = GenerateOptions(frames=60, sampler=sampler, steps=20)
    (video,) = videos_of(pipeline, options).values()
    assert rows_of(sessions).keys() == {"predict", "interpolate"}
    alone = make_manifest(MODEL, DEFAULTS)
    with Pipeline(alone, make_sessions(alone)) as teacher:
        np.testing.assert_array_equal(video, videos_of(teacher, options)[0])


def test_a_single_clip_is_the_students_as_well(pipeline, sessions):
    videos_of(pipeline, GenerateOptions(frames=8, mode="short"))
    assert rows_of(sessions) == {"distilled": CALLS}


def test_a_student_takes_as_many_steps_as_it_learnt(manifest):
    settings = resolve(GenerateOptions(), manifest)
    assert (settings.sampler, settings.steps, settings.eta) == ("distilled", CALLS, 0)
    assert resolve(settings, manifest) == settings
    assert resolve(GenerateOptions(sampler="ddim"), manifest).steps == 20  # all of the schedule
    with pytest.raises(OptionsError, match=r"got steps 2 with sampler distilled, .* learnt 3;"):
        resolve(GenerateOptions(sampler="distilled", steps=2), manifest)
    with pytest.raises(OptionsError, match="got eta with sampler distilled"):
        resolve(GenerateOptions(eta=0.0), manifest)


@pytest.mark.parametrize(("preset", "refine"), [(None, 2), ("fast", 0)])
def test_other_steps_than_the_student_learnt_are_the_teachers(manifest, preset, refine):
    settings = resolve(GenerateOptions(steps=2, preset=preset), manifest)
    assert (settings.sampler, settings.steps, settings.refine) == ("dpmpp_2m", 2, refine)
    asked = resolve(GenerateOptions(steps=CALLS, preset=preset), manifest)
    assert (asked.sampler, asked.steps) == ("distilled", CALLS)


def test_a_preset_of_the_models_own_steps_is_the_teachers_as_well(manifest):
    own = replace(manifest.defaults, presets={"quick": Preset(steps=6, refine=2)})
    settings = resolve(GenerateOptions(preset="quick"), replace(manifest, defaults=own))
    assert (settings.sampler, settings.steps, settings.refine) == ("dpmpp_2m", 6, 2)


@pytest.mark.parametrize("steps", [float(CALLS), 0, 21, "3"])
def test_steps_of_a_student_are_a_number_as_all_are(manifest, steps):
    with pytest.raises(OptionsError, match="expected a whole number from 1 to 20"):
        resolve(GenerateOptions(steps=steps), manifest)


def test_a_model_without_a_student_refuses_its_sampler():
    with pytest.raises(OptionsError, match="fake has no student; use ddim"):
        resolve(GenerateOptions(sampler="distilled"), make_manifest())


def test_the_fast_preset_is_the_student(manifest):
    assert presets_of(make_manifest())["fast"].sampler == "dpmpp_2m"
    settings = resolve(GenerateOptions(preset="fast"), manifest)
    assert (settings.sampler, settings.steps, settings.refine) == ("distilled", CALLS, 0)
    of_four = make_manifest(replace(MODEL, distilled=DistilledFacts(4)))
    assert presets_of(of_four)["fast"] == Preset(sampler="distilled", steps=4, refine=1)
    assert resolve(GenerateOptions(preset="paper"), manifest).sampler == "ddpm"
