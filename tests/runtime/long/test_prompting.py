"""Which text a clip is told, and that nothing else of a run changes with it."""

import numpy as np
import pytest
from msgspec.structs import replace
from toy_arrays import videos_of
from toy_letters import LETTERS, prompted, prompted_pipeline

from lvdm_engines.errors import BundleError, OptionsError, PlanError, SessionError
from lvdm_rt import GenerateOptions, Pipeline, WorkError
from lvdm_rt.diffusion.noise import Site, Stage
from lvdm_rt.long.plan import plan
from lvdm_rt.long.prompting import Prompting, prompt_of, unreached

PROMPTS = ((0, "noon"), (100, "clouds"), (150, "dusk"))
OPTIONS = GenerateOptions(frames=200, prompts=PROMPTS, videos=2, batch_size=2, steps=3)
CONTEXTS = {text: np.full((2, 1), k, np.float32) for k, (_, text) in enumerate(PROMPTS)}


@pytest.fixture
def planned(manifest):
    return plan(200, manifest.model, "hierarchical", 2, refines=True)


def told(planned, stage, clips):
    """The contexts of some clips: k is that of prompt k."""
    prompting = Prompting(
        context=CONTEXTS.get,
        prompts=lambda video: PROMPTS,
        negative="noon",
        weight=1.0,
        frames_per_latent=4,
    )
    sites = [Site(0, stage, clip) for clip in clips]
    return prompting.told(planned, sites).context[:, 0, 0].tolist()


def test_the_keyframes_of_a_clip_are_told_what_holds_in_its_middle(planned):
    # keyframes are 16 frames apart: 0 … 48 in the first clip, then 64 … 96, 112 … 144 and so on
    assert [prompt_of(PROMPTS, planned, clip, 4) for clip in range(5)] == [0, 0, 1, 2, 2]
    assert told(planned, Stage.PREDICT, range(5)) == [0, 0, 1, 2, 2]


def test_a_gap_between_two_texts_is_told_their_mean_and_no_other(planned):
    # keyframes 0 … 6 are of the first text, 7 … 9 of the second, the others of the third
    expected = [0] * 6 + [0.5] + [1] * 2 + [1.5] + [2] * 2
    assert told(planned, Stage.INFILL, range(1, 13)) == expected
    assert told(planned, Stage.REFINE, range(1, 12)) == [0] * 6 + [1] * 3 + [2] * 2


def test_a_continued_video_begins_with_its_first_text(manifest):
    continued = plan(200, manifest.model, "hierarchical", 2, 4, refines=True)
    assert told(continued, Stage.INFILL, [0, 1]) == [0, 0]  # the first gap ends in what is given


def test_prompts_that_share_a_clip_or_come_too_late_reach_nothing(planned):
    prompts = ((0, "a"), (100, "b"), (101, "c"), (9999, "d"))
    assert unreached(prompts, planned, 4) == [100, 9999]
    assert unreached(PROMPTS, planned, 4) == []


def test_clips_before_a_prompt_are_those_of_a_video_without_it():
    with prompted_pipeline() as pipeline:

        def latents(*prompts):
            options = GenerateOptions(frames=200, prompts=prompts, refine=0, batch_size=1)
            return np.concatenate([c.latents for c in pipeline.sample_latents(options)], axis=1)

        plain, changed = latents(PROMPTS[0]), latents(*PROMPTS)
    last = 6 * 4 + 1  # up to the last keyframe of the first text
    np.testing.assert_array_equal(plain[:, :last], changed[:, :last])
    assert (plain[:, last:] != changed[:, last:]).all(axis=(0, 2, 3)).all()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batches_change_nothing_of_what_is_told(batch_size):
    manifest, sessions, tokenizer = prompted()
    for session in sessions.values():
        session.jitter = session.graph in ("predict", "interpolate")
    with Pipeline(manifest, sessions, tokenizer) as pipeline:
        options = replace(OPTIONS, videos=3, exact=True)
        several = videos_of(pipeline, replace(options, batch_size=batch_size))
        for video in range(3):
            alone = replace(options, videos=1, first_video=video)
            np.testing.assert_array_equal(videos_of(pipeline, alone)[video], several[video])


def test_videos_of_different_prompts_and_seeds_are_those_made_alone():
    manifest, sessions, tokenizer = prompted()
    for session in sessions.values():
        session.jitter = session.graph in ("predict", "interpolate")
    every = [
        GenerateOptions(frames=100, seed=seed, first_video=number, exact=True, prompts=prompts)
        for seed, number, prompts in [(1, 0, PROMPTS), (2, 7, [(0, "")]), (1, 0, [(0, "fog")])]
    ]
    with Pipeline(manifest, sessions, tokenizer) as pipeline:
        together = videos_of(pipeline, every)
        for place, options in enumerate(every):
            alone = videos_of(pipeline, options)[options.first_video]
            np.testing.assert_array_equal(together[place], alone)


def test_videos_that_cannot_share_a_call_are_refused():
    with prompted_pipeline() as pipeline:
        one = GenerateOptions(prompt="a")
        for several in ([one, replace(one, frames=5)], [replace(one, videos=2)]):
            with pytest.raises(OptionsError, match="differ in more than seed, first_video and"):
                pipeline.stream_videos(several)
        with pytest.raises(OptionsError, match="got options of no video"):
            pipeline.stream_videos([])


@pytest.mark.parametrize("graph", ["predict", "interpolate", "text_encoder", "decoder"])
@pytest.mark.parametrize(
    "call", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(7, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("several", [True, False])
def test_a_run_with_prompts_that_failed_resumes_to_the_same_frames(tmp_path, graph, call, several):
    options = OPTIONS
    if several:
        options = [replace(OPTIONS, videos=1, seed=seed, prompts=PROMPTS[:seed]) for seed in (1, 2)]
    whole, (manifest, sessions, tokenizer) = run(prompted(), options), prompted()

    def fail(now):
        if now == call:
            raise SessionError("pulled the plug")

    sessions[graph].hook = fail
    if graph == "text_encoder" and call == 7:  # there are no more texts
        call = 1
    with pytest.raises(SessionError, match="pulled the plug"):
        run((manifest, sessions, tokenizer), options, tmp_path)
    got = run(prompted(), options, tmp_path, resume=True)
    assert got.keys() == whole.keys()
    for video, frames in whole.items():
        np.testing.assert_array_equal(got[video], frames)


def run(model, options, work=None, resume=False):
    manifest, sessions, tokenizer = model
    for name in ("predict", "interpolate"):
        sessions[name].jitter = True  # so that other batches would give other latents
    with Pipeline(manifest, sessions, tokenizer) as pipeline:
        return videos_of(pipeline, options, work=work, resume=resume)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": [(0, "night")]},
        {"prompts": [*PROMPTS[:2], (151, "dusk")]},
        {"negative_prompt": "fog"},
        {"text_guidance": 1.0},
        {"guidance_interval": (0, 9)},
    ],
)
def test_a_run_with_other_text_does_not_resume(tmp_path, changes):
    run(prompted(), OPTIONS, tmp_path)
    name = next(iter(changes))
    with pytest.raises(WorkError, match=f"holds an interrupted run with {name}[ \\[]"):
        run(prompted(), replace(OPTIONS, **changes), tmp_path, resume=True)


def test_a_run_of_other_seeds_one_by_one_does_not_resume(tmp_path):
    every = [replace(OPTIONS, videos=1, seed=seed) for seed in (1, 2)]
    run(prompted(), every, tmp_path)
    with pytest.raises(WorkError, match="holds an interrupted run with each"):
        run(prompted(), [every[0], replace(every[1], seed=3)], tmp_path, resume=True)


def test_a_text_is_encoded_once():
    manifest, sessions, tokenizer = prompted()
    with Pipeline(manifest, sessions, tokenizer) as pipeline:
        for _ in range(2):
            videos_of(pipeline, OPTIONS)
    assert sessions["text_encoder"].rows == [1] * 4  # and that of no text
    assert sorted(tokenizer.texts) == ["", "clouds", "dusk", "noon"]


def test_every_row_has_its_branch_over_text_from_the_first_clip_on():
    manifest, sessions, tokenizer = prompted()
    with Pipeline(manifest, sessions, tokenizer) as pipeline:
        videos_of(pipeline, GenerateOptions(frames=60, prompt="noon", batch_size=1))
        assert sessions["predict"].rows == [2] * 4 + [3] * 4  # then over given frames as well
        sessions["predict"].rows.clear()
        quiet = GenerateOptions(frames=60, prompt="noon", batch_size=1, guidance_interval=(0, 5))
        videos_of(pipeline, quiet)
        assert sessions["predict"].rows == [1, 1, 1, 2, 1, 1, 1, 3]


def test_a_context_that_is_not_finite_or_of_another_size_is_refused():
    manifest, sessions, tokenizer = prompted()
    sessions["text_encoder"].compute = lambda tokens: np.zeros((1, LETTERS, 4), np.float32)
    with pytest.raises(BundleError, match=r"text_encoder: output context: got float32 \(1, 6, 4\)"):
        run((manifest, sessions, tokenizer), OPTIONS)


def test_text_without_a_tokenizer_or_an_encoder_is_refused_before_anything_runs():
    manifest, sessions, tokenizer = prompted()
    with pytest.raises(PlanError, match="fake has no tokenizer; give one with its sessions"):
        Pipeline(manifest, sessions).stream(GenerateOptions(prompt="noon"))
    del sessions["text_encoder"]
    with pytest.raises(PlanError, match="fake has no text_encoder graph"):
        Pipeline(manifest, sessions, tokenizer).stream(GenerateOptions(prompt="noon"))


def test_a_tokenizer_for_a_model_without_text_is_refused(manifest, sessions):
    with pytest.raises(PlanError, match="got a tokenizer, but fake reads no text; leave it out"):
        Pipeline(manifest, sessions, prompted()[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "a", "prompts": [(0, "b")]}, "got both prompt and prompts"),
        ({"prompts": []}, r"got prompts \[\], expected pairs"),
        ({"prompts": "noon"}, "got prompts 'noon', expected pairs"),
        ({"prompts": [(0, "a", 1)]}, r"got \(0, 'a', 1\) in prompts, expected a frame and a text"),
        ({"prompts": [(5, "a")]}, r"got prompts from frames \[5\] on, expected 0 first"),
        ({"prompts": [(0, "a"), (8, 5)]}, "got prompt 5, expected a text"),
        ({"prompt": b"noon"}, "got prompt b'noon', expected a text"),
        ({"prompt": "a", "guidance_interval": 5}, "got guidance_interval 5, expected the lowest"),
        ({"prompt": "a", "guidance_interval": (0, 20)}, "got guidance_interval 20, expected a"),
    ],
)
def test_text_options_that_cannot_be_meant_are_refused(options, message):
    with prompted_pipeline() as pipeline, pytest.raises(OptionsError, match=message):
        pipeline.settings(GenerateOptions(**options))


def test_a_model_that_is_told_nothing_is_refused_before_anything_runs():
    with prompted_pipeline() as pipeline:
        assert pipeline.settings(GenerateOptions()).prompts is None
        for options in (GenerateOptions(), [GenerateOptions()]):
            with pytest.raises(OptionsError, match="got no prompt, but fake is told what to show"):
                pipeline.stream_videos(options)


def test_settings_with_text_come_back_as_they_are():
    with prompted_pipeline() as pipeline:
        settings = pipeline.settings(replace(OPTIONS, guidance_interval=[0, 5]))
        assert pipeline.settings(settings) == settings
