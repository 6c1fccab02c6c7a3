"""What a user may rely on, whatever the model."""

import gc
import itertools
import time
import tracemalloc

import msgspec
import numpy as np
import pytest
import toy_arrays

from lvdm_engines.errors import OptionsError
from lvdm_rt import GenerateOptions, Pipeline

FRAMES = 90


def videos_of(pipeline, condition=None, **options):
    settings = GenerateOptions(**{"frames": FRAMES} | options)
    return toy_arrays.videos_of(pipeline, settings, condition=condition)


@pytest.fixture
def jittery(sessions):
    """Kernels that round differently at another batch size."""
    for name in ("predict", "interpolate"):
        sessions[name].jitter = True


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 12, 13, 16, 17, 47, 48, 49, 64, 100])
@pytest.mark.parametrize("mode", ["hierarchical", "autoregressive"])
@pytest.mark.parametrize("given", [0, 1, 6, 40])
def test_the_number_of_frames_is_exactly_what_was_asked(pipeline, frames, mode, given):
    condition = np.full((given, 16, 16, 3), 140, np.uint8) if given else None
    out = videos_of(pipeline, frames=frames, mode=mode, condition=condition)
    assert out[0].shape == (frames, 16, 16, 3)
    assert out[0].dtype == np.uint8


@pytest.mark.parametrize("frames", [1, 7, 16, 19, 20])
def test_a_short_video_has_the_number_of_frames_asked(pipeline, frames):
    assert len(videos_of(pipeline, frames=frames, mode="short")[0]) == frames


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("mode", ["hierarchical", "autoregressive"])
def test_one_seed_gives_one_video_for_any_batch_size_and_number_of_videos(pipeline, sampler, mode):
    options = {"seed": 3, "sampler": sampler, "mode": mode, "steps": None}
    one = videos_of(pipeline, batch_size=1, **options)[0]
    for batch_size, count in itertools.product((1, 2, 5), (1, 3)):
        out = videos_of(pipeline, batch_size=batch_size, videos=count, **options)
        np.testing.assert_array_equal(out[0], one)


def test_video_k_of_a_batch_equals_video_k_alone(pipeline):
    batch = videos_of(pipeline, videos=4, batch_size=3)
    for k in range(4):
        alone = videos_of(pipeline, first_video=k)
        assert list(alone) == [k]
        np.testing.assert_array_equal(alone[k], batch[k])


def test_videos_and_seeds_differ(pipeline):
    batch = videos_of(pipeline, videos=2)
    assert (batch[0] != batch[1]).any()
    assert (videos_of(pipeline, seed=1)[0] != batch[0]).any()


@pytest.mark.usefixtures("jittery")
def test_rounding_of_the_kernels_moves_pixels_by_one_at_most(pipeline):
    one = videos_of(pipeline, batch_size=1)[0].astype(int)
    many = videos_of(pipeline, batch_size=4, videos=3)[0].astype(int)
    assert np.abs(one - many).max() <= 1


def latents_of(pipeline, **options):
    chunks = pipeline.sample_latents(GenerateOptions(frames=FRAMES, **options))
    return np.concatenate([c.latents for c in chunks if c.video == 0], axis=1)


@pytest.mark.usefixtures("jittery")
@pytest.mark.parametrize("guidance", [0.0, 0.3])
def test_exact_latents_are_bit_identical_however_clips_are_grouped(pipeline, guidance):
    loose = [
        latents_of(pipeline, batch_size=b, videos=n, guidance=guidance) for b, n in ((1, 1), (4, 3))
    ]
    assert (loose[0] != loose[1]).any()  # the fake does what real kernels do
    exact = [
        latents_of(pipeline, batch_size=b, videos=n, guidance=guidance, exact=True)
        for b, n in ((1, 1), (2, 1), (4, 3), (8, 2))
    ]
    for other in exact[1:]:
        np.testing.assert_array_equal(other, exact[0])


def test_the_first_frames_arrive_before_the_last_are_sampled(pipeline):
    seen = []
    stream = pipeline.stream(GenerateOptions(frames=2000), progress=seen.append)
    next(stream)
    assert seen[-1].steps < seen[-1].total_steps / 4
    stream.close()


def settle(seen):
    """Wait until nothing moves: every queue is full and the threads wait for the reader."""
    before = -1
    while before != len(seen):
        before = len(seen)
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hierarchical", "autoregressive"])
def test_memory_does_not_grow_with_the_length_of_the_video(make_fake, manifest, mode):
    # Large enough for arrays, and not the interpreter's own objects, to make up the memory.
    latent = msgspec.structs.replace(manifest.model.latent, size=(16, 16))
    options = GenerateOptions(frames=4000, steps=1, mode=mode)
    held, peaks, seen = {}, {}, []
    with Pipeline(*make_fake(frame_size=(64, 64), latent=latent)) as pipeline:
        stream = pipeline.stream(options, progress=lambda now: seen.append(None))
        tracemalloc.start()
        try:
            for turn, _ in enumerate(stream):
                if turn in (20, 170):  # after 256 and 2048 frames
                    settle(seen)
                    gc.collect()
                    held[turn], peaks[turn] = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert held[170] < 1.1 * held[20]
    assert peaks[170] < 2 * peaks[20]  # where threads happen to be busy at once; never a video


def test_a_caller_who_is_slow_holds_up_sampling(pipeline):
    seen = []
    stream = pipeline.stream(GenerateOptions(frames=4000, steps=1), progress=seen.append)
    next(stream)
    settle(seen)
    assert seen[-1].frames < 100
    stream.close()


def test_only_the_last_frames_of_a_condition_matter(pipeline):
    rng = np.random.default_rng(0)
    condition = rng.integers(0, 255, (80, 16, 16, 3), dtype=np.uint8)
    needed = pipeline.condition_frames(GenerateOptions())
    assert needed == 16
    whole = videos_of(pipeline, condition=condition)[0]
    np.testing.assert_array_equal(videos_of(pipeline, condition=condition[-needed:])[0], whole)


def test_several_videos_need_stream_videos(pipeline):
    with pytest.raises(OptionsError, match="use stream_videos"):
        pipeline.stream(GenerateOptions(videos=2))
