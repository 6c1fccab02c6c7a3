"""Words that synthetic skies are described with, and the file that keeps words of videos."""

import json

import numpy as np
import pytest

from lvdm_engines.errors import TrainingError
from lvdm_tools.cli import run
from lvdm_tools.data.captions import caption
from lvdm_tools.data.clip import ClipSpec
from lvdm_tools.data.source import open_source
from lvdm_tools.data.synth import sky_clip

SPEC = ClipSpec(4, (16, 16))
NUL = r'{"file": "a.mp4", "caption": "a\u0000b"}'


@pytest.fixture(scope="module")
def told():
    """Captions of 300 skies and the first frame of each, uint8 (16, 16, 3)."""
    return [(caption(3, index), sky_clip(3, 1, 16, index=index)[0]) for index in range(300)]


def colours(told, *words):
    chosen = [frame.mean((0, 1)) for text, frame in told if any(word in text for word in words)]
    assert len(chosen) > 10, words
    return np.mean(chosen, axis=0)


def test_captions_repeat_and_vary(told):
    assert [caption(3, index) for index in range(20)] == [text for text, _ in told[:20]]
    assert len({text for text, _ in told}) > 150


def test_times_of_day_have_their_light(told):
    night, low, noon = (
        colours(told, *words)
        for words in (("night", "moonlight"), ("sunset", "sunrise", "orange"), ("noon", "blue"))
    )
    assert night.mean() < low.mean() - 25
    assert low[0] - low[2] > noon[0] - noon[2] + 25  # redder


def test_clouds_are_as_many_as_said(told):
    by_day = [(t, f) for t, f in told if any(word in t for word in ("noon", "day", "blue"))]
    clear, cloudy = (
        colours(by_day, *words) for words in (("clear", "few", "scattered"), ("heavy", "cloudy"))
    )
    assert clear[2] - clear[0] > cloudy[2] - cloudy[0] + 10  # bluer


def test_clouds_move_to_the_side_that_is_said():
    right = 0
    moving = [k for k in range(60) if any(w in caption(5, k) for w in ("moving", "drifting to"))]
    for index in moving:
        text = caption(5, index)
        early, late = sky_clip(5, 2, 48, index=index, stride=6).astype(float).mean(3)[:, :30]
        shifts = [np.corrcoef(early[:, 8:-8].flat, np.roll(late, -s, 1)[:, 8:-8].flat)[0, 1]
                  for s in range(-6, 7)]  # fmt: skip
        found = int(np.argmax(shifts)) - 6
        right += (found > 0) == (" right" in text)
    assert right >= 0.9 * len(moving) > 8


def test_synth_tells_what_its_videos_show_and_training_reads_it(tmp_path):
    assert run(["synth", "-o", str(tmp_path), "--clips", "3", "--frames", "8", "--size", "16"]) == 0
    assert run(["synth", "-o", str(tmp_path), "--clips", "1", "--frames", "8", "--size", "16",
                "--first", "7"]) == 0  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [(line["file"], line["caption"]) for line in lines] == [
        (f"sky-{k:05}.mp4", caption(0, k, 4)) for k in (0, 1, 2, 7)
    ]
    source = open_source(tmp_path, SPEC, captioned=True)
    texts = {source.captioned(index)[1] for index in range(20)}
    assert texts == {caption(0, k, 4) for k in (0, 1, 2)}  # the last one is held out
    np.testing.assert_array_equal(source.captioned(3)[0], source.clip(3))


def test_synthetic_clips_are_described_by_their_middle():
    source = open_source("synth", SPEC, seed=4)
    assert source.captioned(2)[1] == caption(4, 2, 2)


@pytest.mark.parametrize(
    "line", ["{}", "clouds", '{"file": "a.mp4", "caption": 3}', '{"file": "', NUL]
)
def test_a_line_that_is_no_caption_is_named(tmp_path, line):
    run(["synth", "-o", str(tmp_path / "a.mp4"), "--frames", "8", "--size", "16"])
    (tmp_path / "captions.jsonl").write_text(
        '{"file": "a.mp4", "caption": "clouds"}\n\n' + line + "\n"
    )
    with pytest.raises(TrainingError, match=r"captions\.jsonl, line 3: .*expected"):
        open_source(tmp_path, SPEC, captioned=True)
    open_source(tmp_path, SPEC)  # which reads no captions
    assert run(["synth", "-o", str(tmp_path), "--frames", "8", "--size", "16"]) == 1


def test_captions_of_no_video_are_told_and_change_nothing(tmp_path, caplog):
    run(["synth", "-o", str(tmp_path / "a.mp4"), "--frames", "20", "--size", "16"])
    before = open_source(tmp_path, SPEC).identity
    (tmp_path / "captions.jsonl").write_bytes(b'\xef\xbb\xbf{"file": "A.mp4", "caption": "x"}\n')
    assert open_source(tmp_path, SPEC).identity == before
    source = open_source(tmp_path, SPEC, captioned=True)
    assert source.captioned(0)[1] == ""
    assert "1 files that have captions are no videos" in caplog.text
    assert "'A.mp4'" in caplog.text
