import math

import pytest
from msgspec.structs import replace

from lvdm_engines.defaults import SAMPLER_NAMES, Preset
from lvdm_engines.errors import OptionsError
from lvdm_rt.cli import generate
from lvdm_rt.diffusion.sampler import SAMPLERS
from lvdm_rt.options import STEPS, GenerateOptions, resolve


def ask(manifest, **options):
    return resolve(GenerateOptions(**options), manifest)


def changed(manifest, steps=20, noise_levels=10, **defaults):
    """The manifest with another schedule or other defaults."""
    schedule = replace(manifest.model.schedule, steps=steps)
    model = replace(manifest.model, schedule=schedule, noise_levels=noise_levels)
    return replace(manifest, model=model, defaults=replace(manifest.defaults, **defaults))


def test_what_is_not_asked_is_the_models_own_value(manifest):
    settings = ask(manifest)
    assert (settings.sampler, settings.steps, settings.eta) == ("ddim", 4, 1.0)
    assert (settings.guidance, settings.noise_level, settings.fps) == (0.2, 5, 8.0)
    assert (settings.mode, settings.seed, settings.overlap) == ("hierarchical", 0, 2)
    assert ask(changed(manifest, overlap=1)).overlap == 1
    assert ask(changed(manifest, overlap=1), overlap=2).overlap == 2


def test_every_sampler_can_be_asked_for_and_has_its_number_of_steps():
    (option,) = (option for option in generate.params if option.name == "sampler")
    assert tuple(option.type.choices) == SAMPLER_NAMES == (*SAMPLERS,)
    # others take all that were trained, or as many as their network learnt
    assert {*STEPS} == {*SAMPLERS} - {"ddpm", "distilled"}


def test_a_short_schedule_is_refined_in_no_more_steps_than_it_has(manifest):
    short = changed(manifest, steps=1, noise_levels=1, noise_level=0)
    assert ask(short).refine == ask(short, preset="balanced").refine == 1


def test_exact_is_true_or_false(manifest):
    with pytest.raises(OptionsError, match="got exact 'no', expected True or False"):
        ask(manifest, exact="no")


def test_only_modes_with_keyframes_refine_them(manifest):
    assert ask(manifest).refine == manifest.defaults.refine == 2
    assert ask(manifest, refine=0).refine == ask(manifest, mode="short").refine == 0
    with pytest.raises(OptionsError, match="got refine 1 in mode autoregressive"):
        ask(manifest, mode="autoregressive", refine=1)
    with pytest.raises(OptionsError, match="got refine 21, expected a whole number from 0 to 20"):
        ask(manifest, refine=21)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "ddpm"])
def test_settings_come_back_as_they_are(manifest, sampler):
    settings = ask(manifest, sampler=sampler, mode="short")
    assert resolve(settings, manifest) == settings


@pytest.mark.parametrize("wrong", [{"steps": 10**9}, {"overlap": 99}, {"eta": math.nan}])
def test_settings_that_this_model_cannot_have_are_refused(manifest, wrong):
    settings = replace(ask(manifest), **wrong)
    with pytest.raises(OptionsError, match=f"got {next(iter(wrong))} "):
        resolve(settings, manifest)


def test_zero_is_a_value_and_not_a_default(manifest):
    settings = ask(manifest, eta=0.0, guidance=0.0, noise_level=0, overlap=0)
    assert (settings.eta, settings.guidance) == (0, 0)
    assert (settings.noise_level, settings.overlap) == (0, 0)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("paper", ("ddpm", 1000, 0)), ("balanced", ("dpmpp_2m", 10, 2)), ("fast", ("dpmpp_2m", 6, 1))],
)
def test_presets_choose_sampler_and_steps(manifest, preset, expected):
    settings = ask(changed(manifest, steps=1000), preset=preset)
    assert (settings.sampler, settings.steps, settings.refine) == expected


def test_a_preset_takes_all_steps_of_a_schedule_that_has_fewer(manifest):
    presets = {"long": Preset(sampler="ddim", steps=50)}
    assert ask(changed(manifest, presets=presets), preset="long").steps == 20


def test_a_bundle_brings_presets_of_its_own(manifest):
    presets = {"fast": Preset(sampler="ddim", steps=3), "soft": Preset(guidance=1.5)}
    manifest = changed(manifest, presets=presets)
    assert ask(manifest, preset="fast").steps == 3
    assert ask(manifest, preset="soft").guidance == 1.5


def test_a_flag_wins_over_the_preset(manifest):
    assert ask(manifest, preset="fast", steps=7).steps == 7
    assert ask(manifest, preset="fast", guidance=2.0).guidance == 2.0


def test_another_sampler_than_the_models_brings_its_own_steps(manifest):
    assert ask(manifest, sampler="dpmpp_2m").steps == 10
    assert ask(manifest, sampler="ddpm").steps == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "got frames 0, expected a whole number from 1"),
        ({"frames": -3}, "got frames -3"),
        ({"frames": 10**12}, "got frames 1000000000000, expected a whole number from 1 to"),
        ({"frames": 2.5}, "got frames 2.5"),
        ({"seed": -1}, "got seed -1"),
        ({"seed": 2**64}, "got seed"),
        ({"videos": 0}, "got videos 0"),
        ({"first_video": -1}, "got first_video -1"),
        ({"batch_size": 0}, "got batch_size 0"),
        ({"steps": 0}, "got steps 0"),
        ({"steps": 21}, "got steps 21, expected a whole number from 1 to 20"),
        ({"eta": 2.0}, "got eta 2.0"),
        ({"eta": math.nan}, "got eta nan"),
        ({"guidance": math.inf}, "got guidance inf"),
        ({"guidance": -2}, "got guidance -2, expected a number from 0"),
        ({"guidance": "much"}, "got guidance 'much', expected a number"),
        ({"noise_level": 10}, "got noise_level 10, expected a whole number from -1 to 9"),
        ({"overlap": 3}, "got overlap 3, expected a whole number from 0 to 2"),
        ({"fps": 0.0}, "got fps 0.0"),
        ({"fps": 10**400}, r"got fps 10+\.\.\.0+, expected a number from 0.1"),
        ({"frames": 10**400}, r"got frames 10+\.\.\.0+, expected a whole"),
        ({"steps": "9" * 400}, r"got steps '9+\.\.\.9+', expected a whole"),
        ({"mode": "x" * 400}, r"got mode 'x+\.\.\.x+', expected one of"),
        ({"mode": "cubist"}, "got mode 'cubist', expected one of hierarchical"),
        ({"preset": "best"}, "got preset 'best', expected one of paper, balanced, fast"),
        ({"sampler": "euler"}, "got sampler 'euler'"),
        ({"sampler": "ddpm", "steps": 10}, "got steps 10 with sampler ddpm"),
        ({"sampler": "dpmpp_2m", "eta": 0.5}, "got eta with sampler dpmpp_2m"),
        ({"preset": "paper", "eta": 0.5}, "got eta with sampler ddpm"),
        ({"preset": "fast", "sampler": "ddim"}, "with preset 'fast', which is dpmpp_2m"),
        ({"mode": "short", "guidance": 1.0}, "got guidance 1.0 in mode short"),
    ],
)
def test_a_bad_request_is_refused_with_what_is_possible(manifest, options, message):
    with pytest.raises(OptionsError, match=message):
        ask(manifest, **options)


def test_a_model_without_noise_levels_refuses_one(manifest):
    manifest = changed(manifest, noise_levels=None, noise_level=None)
    assert ask(manifest).noise_level == -1
    with pytest.raises(OptionsError, match="was not trained with perturbed conditions"):
        ask(manifest, noise_level=3)


def test_guidance_is_refused_where_the_bundle_has_only_short_videos_too(make_fake):
    manifest, _ = make_fake(predict=None, interpolate=None)
    assert ask(manifest).mode == "short"
    assert ask(manifest).guidance == 0
    with pytest.raises(OptionsError, match=r"got guidance 1.0 in mode short"):
        ask(manifest, guidance=1.0)
