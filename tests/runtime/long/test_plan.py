import itertools

import msgspec
import numpy as np
import pytest
import toy

from lvdm_engines.errors import PlanError
from lvdm_engines.manifest import LatentFacts, PredictFacts, ShortFacts
from lvdm_rt.diffusion.noise import Stage
from lvdm_rt.long.keyframes import VideoLatents
from lvdm_rt.long.plan import batches, needed_condition, plan

MODEL = toy.model_facts(
    latent=LatentFacts(channels=1, size=(1, 1), scale=1.0, shift=0.0), short=ShortFacts(clip=5)
)
TWO_GIVEN = msgspec.structs.replace(MODEL, predict=PredictFacts(clip=5, condition=2, stride=4))


def simulate(model, planned, videos, batch_size):
    """Run the jobs on latents that say where they are; return the positions that came out."""
    condition = None
    if planned.given:
        condition = np.arange(-planned.given, 0, dtype=np.float32).reshape(1, -1, 1, 1)
    videos_of = {video: VideoLatents(planned, condition) for video in videos}
    out = {video: [] for video in videos}
    most_kept = 0
    for batch in batches(planned, videos, batch_size):
        assert len(batch.sites) <= batch_size
        for site in batch.sites:
            track = videos_of[site.video]
            if site.stage is Stage.INFILL:
                ends = track.around(site.clip)[0, :, 0, 0]
                assert ends[1] - ends[0] == planned.stride
                new = np.arange(ends[0] + 1, ends[1], dtype=np.float32)
                track.add_gap(site.clip, new.reshape(1, -1, 1, 1))
            elif site.stage is Stage.REFINE:
                window = track.near(site.clip)
                start = planned.position(site.clip) - 2
                assert window[0, :, 0, 0].tolist() == list(range(start, start + 5))
                track.add_refined(site.clip, window[:, 1:-1] + 0.5)
            else:
                clip = planned.chain(site.clip)
                wanted = [planned.position(clip.first - clip.given + i) for i in range(clip.given)]
                if clip.given:
                    assert track.before(clip)[0, :, 0, 0].tolist() == wanted
                new = [planned.position(clip.first + i) for i in range(clip.new)]
                track.add_keys(clip, np.array(new, np.float32).reshape(1, -1, 1, 1))
        for video, track in videos_of.items():
            ready = track.take()
            if ready is not None:
                out[video].extend(ready[0, :, 0, 0].tolist())
            kept = len(track._keys) + len(track._gaps) + len(track._refined)
            most_kept = max(most_kept, kept)
    return out, most_kept


@pytest.mark.parametrize("model", [MODEL, TWO_GIVEN], ids=["1 given", "2 given"])
@pytest.mark.parametrize("mode", ["hierarchical", "autoregressive"])
@pytest.mark.parametrize("given", [0, 1, 2, 4, 5, 9])
@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_every_latent_is_made_once_and_in_order_for_any_length(model, mode, given, overlap):
    for frames in [*range(1, 70, 3), 256]:
        planned = plan(frames, model, mode, overlap, given)
        assert planned.latents * 4 >= frames
        out, _ = simulate(model, planned, [7, 8, 9], 2)
        for positions in out.values():
            assert positions == list(range(planned.latents))


@pytest.mark.parametrize("model", [MODEL, TWO_GIVEN], ids=["1 given", "2 given"])
@pytest.mark.parametrize("given", [0, 1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_keyframes_between_two_gaps_are_refined_with_their_neighbours(model, given, batch_size):
    for frames in [*range(1, 100, 7), 256]:
        planned = plan(frames, model, "hierarchical", 2, given, refines=True)
        out, _ = simulate(model, planned, [7, 8, 9], batch_size)
        again = {planned.position(key) + i for key in planned.gaps[:-1] for i in (-1, 0, 1)}
        wanted = [at + 0.5 * (at in again) for at in range(planned.latents)]
        assert all(positions == wanted for positions in out.values())


@pytest.mark.parametrize(("given", "lead"), [(0, 0), (3, 1)])
def test_latents_are_rounded_up_to_whole_decode_windows(given, lead):
    for frames in range(1, 100):
        planned = plan(frames, MODEL, "hierarchical", 1, given)
        assert planned.lead == lead
        assert (planned.latents + lead - 4) % 3 == 0
        assert planned.latents * 4 - frames < 4 * 4 or planned.latents + lead == 4


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("mode", ["hierarchical", "autoregressive"])
@pytest.mark.parametrize("refines", [False, True])
def test_what_is_kept_does_not_grow_with_the_video(mode, batch_size, refines):
    short, long = (
        simulate(MODEL, plan(frames, MODEL, mode, 1, refines=refines), [0, 1], batch_size)[1]
        for frames in (256, 2048)
    )
    assert short == long


def test_the_first_gaps_are_infilled_before_the_second_predict_clip():
    order = [batch.stage for batch in itertools.islice(batches(plan(256, MODEL), [0], 1), 5)]
    assert order == [Stage.PREDICT, Stage.INFILL, Stage.INFILL, Stage.INFILL, Stage.PREDICT]


def test_first_frames_wait_for_no_more_than_the_first_keyframe_to_refine():
    order = [b.stage for b in itertools.islice(batches(plan(256, MODEL, refines=True), [0], 2), 5)]
    first = [Stage.PREDICT, Stage.INFILL, Stage.REFINE]
    assert order == [*first, Stage.INFILL, Stage.REFINE]


def test_gaps_fill_whole_batches_after_the_first():
    sizes = [
        len(batch.sites)
        for batch in batches(plan(512, MODEL), [0], 4)
        if batch.stage is Stage.INFILL
    ]
    assert sizes[:2] == [1, 2]
    assert set(sizes[2:-1]) == {4}


def test_more_videos_than_a_batch_come_in_groups():
    videos = [[s.video for s in batch.sites] for batch in batches(plan(4, MODEL), range(5), 2)]
    assert [max(v) // 2 for v in videos] == sorted(max(v) // 2 for v in videos)
    assert all(len(v) <= 2 for v in videos)


def test_a_plan_for_millions_of_frames_is_immediate():
    planned = plan(10_000_000, MODEL, "hierarchical", 1)
    assert len(planned.gaps) == 625_000
    assert next(iter(batches(planned, [0], 4))).sites[0].clip == 0


@pytest.mark.parametrize(
    ("frames", "changes", "mode", "given", "message"),
    [
        (21, {}, "short", 0, "got 21 frames in mode short, which makes at most 20"),
        (4, {"short": None}, "short", 0, "needs a short graph"),
        (4, {}, "short", 1, "mode short cannot continue a video"),
        (4, {"predict": None}, "autoregressive", 0, "needs a predict graph"),
        (4, {"interpolate": None}, "hierarchical", 0, "needs an interpolate graph"),
    ],
)
def test_an_impossible_plan_says_what_to_do(frames, changes, mode, given, message):
    model = msgspec.structs.replace(MODEL, **changes)
    with pytest.raises(PlanError, match=message):
        plan(frames, model, mode, 0, given)


def test_a_short_video_is_one_clip():
    planned = plan(17, MODEL, "short", 1)
    assert (planned.latents, planned.clips, len(planned.gaps)) == (5, 1, 0)


def test_a_condition_brings_all_the_keyframes_that_the_predictor_was_trained_on():
    assert needed_condition(TWO_GIVEN, "hierarchical", 1) == 5
    assert needed_condition(MODEL, "hierarchical", 1) == MODEL.decode_window
    assert plan(64, TWO_GIVEN, "hierarchical", 1, given=5).given_keys == 2
    assert plan(64, TWO_GIVEN, "hierarchical", 1, given=4).given_keys == 1
