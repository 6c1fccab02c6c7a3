"""Blocks of long videos that are decoded without the rest."""

import numpy as np
import pytest
from toy_arrays import MODEL, make_manifest, make_sessions

from lvdm_rt import GenerateOptions, Pipeline
from lvdm_tools.quality.ageing import ageing
from lvdm_tools.quality.blocks import Wanted, clips_of_blocks, piece
from lvdm_tools.quality.subjects import Generated


@pytest.fixture
def pipeline():
    manifest = make_manifest()
    with Pipeline(manifest, make_sessions(manifest)) as pipeline:
        yield pipeline


@pytest.mark.parametrize(
    ("every", "blocks"),
    [(1, [0, 32, 64, 96, 128, 160]), (2, [0, 64, 128, 160]), (5, [0, 160]), (9, [0, 160])],
)
def test_every_nth_block_is_wanted_and_the_last(every, blocks):
    wanted = Wanted(192, 32, every)
    assert wanted.blocks == blocks
    assert wanted.clips == [first // 16 + i for first in blocks for i in (0, 1)]


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("frames", [96, 100])
def test_a_block_has_the_frames_that_it_has_in_the_whole_video(pipeline, overlap, frames):
    options = GenerateOptions(frames=96, videos=2, first_video=3, overlap=overlap, seed=5)
    whole = {}
    for chunk in pipeline.stream_videos(options):
        whole.setdefault(chunk.video, []).append(chunk.frames)
    found = list(clips_of_blocks(pipeline, options, Wanted(96, 16, 2)))
    assert [(video, clip) for video, clip, _ in found] == [
        (v, c) for v in (3, 4) for c in (0, 2, 4, 5)
    ]
    for video, clip, pixels in found:
        expected = np.concatenate(whole[video])[clip * 16 : (clip + 1) * 16]
        np.testing.assert_array_equal(pixels, expected)


def test_a_piece_begins_where_a_window_does_and_early_enough_to_be_blended():
    window, per = MODEL.decode_window, MODEL.frames_per_latent
    overlap = window // 2
    for first in range(0, 40 * per, per):
        low, high = piece(first, first + 16, MODEL, overlap)
        assert low % (window - overlap) == 0
        assert low == 0 or low <= first // per - overlap
        assert high * per >= first + 16
        assert (high - low - overlap) % (window - overlap) == 0


def test_nothing_but_the_wanted_blocks_is_decoded(pipeline, monkeypatch):
    decoded, decode = [], Pipeline.decode

    def count(self, latents, overlap):
        decoded.append(latents.shape[1])
        return decode(self, latents, overlap)

    monkeypatch.setattr(Pipeline, "decode", count)
    subject = Generated("toy", pipeline, GenerateOptions())
    assert len(list(subject.clips(range(1), Wanted(160, 16, 9)))) == 2
    assert 0 < sum(decoded) * MODEL.frames_per_latent < 160 / 2


def test_what_grows_is_told_with_an_interval_of_the_same_videos():
    rng = np.random.default_rng(1)
    first = rng.uniform(1, 9, (12, 2, 1))  # videos differ much, and all of them by one factor

    def mean(rows):
        return float(rows.mean())

    still, grown, below, none = (
        next(ageing("x", [("m", mean, [])], ends))
        for ends in ((first, first), (first, 1.5 * first), (-first, -2 * first), (0 * first, first))
    )
    assert (still.ratio, still.low, still.high) == pytest.approx((1, 1, 1))
    assert (grown.ratio, grown.low, grown.high) == pytest.approx((1.5, 1.5, 1.5))
    assert (below.ratio, below.low, below.high) == pytest.approx((2, 2, 2))  # a slope
    assert (none.ratio, none.low, none.high) == (None, None, None)
