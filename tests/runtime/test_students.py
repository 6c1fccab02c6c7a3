"""A student beside its teachers: which network makes which clip, and what may be asked of it."""

import numpy as np
import pytest
from msgspec.structs import replace
from toy_arrays import DEFAULTS, MODEL, make_manifest, make_sessions, videos_of

from lvdm_engines.errors import OptionsError
from lvdm_engines.manifest import DistilledFacts
from lvdm_rt import GenerateOptions, Pipeline
from lvdm_rt.diffusion.schedule import few_timesteps
from lvdm_rt.long.sampling import schedule_of
from lvdm_rt.options import resolve
from lvdm_rt.presets import presets_of

CALLS = 3


@pytest.fixture
def manifest():
    defaults = replace(DEFAULTS, sampler="distilled", steps=CALLS)
    return make_manifest(replace(MODEL, distilled=DistilledFacts(CALLS)), defaults)


def rows_of(sessions):
    """How many clips each denoiser was given, guidance included."""
    names = ("predict", "interpolate", "short", "distilled")
    return {name: sum(sessions[name].rows) for name in names if sessions[name].rows}


def test_a_student_makes_and_refines_all_clips_at_the_timesteps_it_learnt(pipeline, sessions):
    seen = set()
    compute = sessions["distilled"].compute

    def watched(**feeds):
        seen.update(feeds["timestep"].tolist())
        return compute(**feeds)

    sessions["distilled"].compute = watched
    (video,) = videos_of(pipeline, GenerateOptions(frames=60, refine=0)).values()
    drafts = sum(sessions["distilled"].rows)
    (refined,) = videos_of(pipeline, GenerateOptions(frames=60, refine=1)).values()
    assert sum(sessions["distilled"].rows) > 2 * drafts
    assert rows_of(sessions).keys() == {"distilled"}
    assert seen == set(few_timesteps(schedule_of(MODEL), CALLS).tolist())
    assert not np.array_equal(refined, video)


def test_a_student_refines_by_no_more_calls_than_it_learnt(manifest):
    assert resolve(GenerateOptions(refine=CALLS), manifest).refine == CALLS
    with pytest.raises(OptionsError, match="got refine 4, expected a whole number from 0 to 3"):
        resolve(GenerateOptions(refine=CALLS + 1), manifest)
    many = replace(manifest, defaults=replace(manifest.defaults, refine=20))
    assert resolve(GenerateOptions(), many).refine == CALLS


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


@pytest.mark.parametrize("preset", [None, "fast"])
def test_other_steps_than_the_student_learnt_are_the_teachers(manifest, preset):
    settings = resolve(GenerateOptions(steps=2, preset=preset), manifest)
    assert (settings.sampler, settings.steps) == ("dpmpp_2m", 2)
    asked = resolve(GenerateOptions(steps=CALLS, preset=preset), manifest)
    assert (asked.sampler, asked.steps) == ("distilled", CALLS)


def test_a_model_without_a_student_refuses_its_sampler():
    with pytest.raises(OptionsError, match="fake has no student; choose ddim"):
        resolve(GenerateOptions(sampler="distilled"), make_manifest())


def test_the_fast_preset_is_the_student_alone(manifest):
    assert presets_of(make_manifest())["fast"].sampler == "dpmpp_2m"
    settings = resolve(GenerateOptions(preset="fast"), manifest)
    assert (settings.sampler, settings.steps, settings.refine) == ("distilled", CALLS, 0)
    assert resolve(GenerateOptions(preset="paper"), manifest).sampler == "ddpm"
