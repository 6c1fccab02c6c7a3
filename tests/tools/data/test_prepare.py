"""Published data sets in miniature: what is taken of them, what is left out, and why."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from toy_films import levels, plain, write, write_pictures, write_video

from lvdm_engines.errors import TrainingError, VideoError
from lvdm_tools import cli
from lvdm_tools.data import prepare as preparing
from lvdm_tools.data.clip import ClipSpec
from lvdm_tools.data.prepare import Recipe, prepare
from lvdm_tools.data.source import open_both, open_source
from lvdm_tools.data.video_file import read_clip

TABLE = "video_id,start,end,bbox,fps,width,height,partition\n"


def prepared(kind, source, out, **how):
    return prepare(Recipe(kind=kind, source=str(source), **how), out, 2, lambda *_: None)


@pytest.fixture
def ucf(tmp_path):
    """Two classes: in each a video for training and one for tests; lists of one more."""
    source = tmp_path / "set"
    for name in ("Archery", "Biking"):
        for group in (1, 8):
            video = source / "UCF-101" / name / f"v_{name}_g{group:02}_c01.avi"
            write_video(video, levels(18 + group))
    lists = source / "ucfTrainTestlist"
    lists.mkdir()
    train = [f"{n}/v_{n}_g08_c01.avi {k}\n" for k, n in enumerate(("Archery", "Biking"), 1)]
    (lists / "trainlist01.txt").write_text("".join([*train, "Biking/v_Biking_g09_c02.avi 2\n"]))
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\r\n")
    return source


@pytest.fixture
def sky(tmp_path):
    """Two videos of the sky as folders of pictures, one of them in two clips."""
    for place in ("sky_train/a/a_1", "sky_train/a/a_2", "sky_test/b/b_1"):
        write_pictures(tmp_path / "set" / place, levels(20), "jpg")
    return tmp_path / "set"


@pytest.fixture
def boxes(tmp_path):
    """A whole video of Taichi-HD, and a box in its right half at twice its rate and size."""
    halves = plain(levels(60), (48, 64))
    for picture in halves:
        picture[:, :32] = 255
    write(tmp_path / "set/youtube-taichi/u6rJiF-gPx8.mp4", halves, "libx264", rate=10)
    (tmp_path / "set/taichi-metadata.csv").write_text(
        TABLE + "u6rJiF-gPx8,21,61,64-0-128-64,20.0,128,96,train\n"
        "u6rJiF-gPx8,100,400,64-0-128-64,20.0,128,96,test\n"
        "u6rJiF-gPx8,0,40,64-0-129-64,20.0,128,96,test\n"
        "gone_______,0,40,64-0-128-64,20.0,128,96,test\n"
    )
    return tmp_path / "set"


def test_ucf101_is_parted_as_its_lists_say(ucf, tmp_path):
    record = prepared("ucf101", ucf, tmp_path / "out")
    taken = {name: item.frames for name, item in record.taken.items()}
    assert taken == {
        "train/Archery/v_Archery_g08_c01": 26,
        "train/Biking/v_Biking_g08_c01": 26,
        "test/Archery/v_Archery_g01_c01": 19,
    }
    assert "trainlist01.txt names it, but" in record.left_out["train/Biking/v_Biking_g09_c02"]
    assert record.left_out["v_Biking_g01_c01"] == "neither list of split 1 names it"
    assert json.loads((tmp_path / "out/prepared.json").read_bytes())["complete"] is True


def test_what_is_linked_shows_the_pixels_of_the_source(ucf, sky, tmp_path):
    spec = ClipSpec(16, (16, 16))
    for kind, source in (("ucf101", ucf), ("sky-timelapse", sky)):
        record = prepared(kind, source, tmp_path / kind)
        for item in record.taken.values():
            made = read_clip(tmp_path / kind / item.file, 1, spec)
            np.testing.assert_array_equal(made, read_clip(source / item.source, 1, spec))
        train, unseen = open_both(tmp_path / kind, spec)
        assert len(train.videos) + len(unseen.videos) == len(record.taken) == 3
        assert train.clip(0).shape == (16, 16, 16, 3)


@pytest.mark.parametrize(("form", "most"), [("png", 0), ("mp4", 2)])
def test_with_a_size_square_frames_are_written_that_training_would_have_made(
    sky, tmp_path, form, most
):
    record = prepared("sky-timelapse", sky, tmp_path / "out", size=24, form=form)
    spec = ClipSpec(20, (24, 24))
    for item in record.taken.values():
        made = read_clip(tmp_path / "out" / item.file, 0, spec).astype(int)
        assert np.abs(made - read_clip(sky / item.source, 0, spec)).max() <= most
    assert open_source(tmp_path / "out/test", ClipSpec(4, (24, 24))).clip(0).shape[1:3] == (24, 24)


@pytest.mark.parametrize("kind", ["mp4", "png"])
def test_taichi_that_is_cut_already_is_taken_as_it_is(tmp_path, kind):
    name = tmp_path / "set/train/u6rJiF-gPx8#000080#000300.mp4"
    made = write_video(name, levels(20)) if kind == "mp4" else write_pictures(name, levels(20))
    record = prepared("taichi", tmp_path / "set", tmp_path / "out")
    (taken,) = record.taken.values()
    assert (taken.source, taken.frames) == (f"train/{made.name}", 20)
    assert open_source(tmp_path / "out", ClipSpec(4, (16, 16))).clip(0).shape == (4, 16, 16, 3)


def test_boxes_of_taichi_are_cut_out_in_time_and_space(boxes, tmp_path):
    record = prepared("taichi", boxes, tmp_path / "out")
    ((name, item),) = record.taken.items()
    assert name == "train/u6rJiF-gPx8#000021#000061"
    clip = read_clip(tmp_path / "out" / item.file, 0, ClipSpec(item.frames, (256, 256)))
    # frames 10.5 to 30.5 of the video's own, and nothing of its white half
    assert np.abs(clip.mean((1, 2, 3)) - levels(60)[11:31]).max() < 4
    assert item.source_size == (64, 48)
    told = record.left_out
    assert "ended after 60 of 200 frames" in told["test/u6rJiF-gPx8#000100#000400"]
    assert "does not lie inside of (128, 96)" in told["test/u6rJiF-gPx8#000000#000040"]
    assert "names gone_______.mp4, which is not" in told["test/gone_______#000000#000040"]


def test_what_is_damaged_or_short_is_left_out_with_its_reason(ucf, sky, tmp_path):
    film = ucf / "UCF-101/Archery/v_Archery_g08_c01.avi"
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    write(film, list(noise))
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    told = prepared("ucf101", ucf, tmp_path / "ucf", min_frames=20).left_out
    assert re.search("ended after .* of 40 frames", told["train/Archery/v_Archery_g08_c01"])
    assert "it has 19 frames, and 20 are asked for" in told["test/Archery/v_Archery_g01_c01"]
    for place, size in (("sky_train/a/a_1/frame_7.jpg", 0), ("sky_train/a/a_2/frame_9.jpg", 400)):
        (sky / place).write_bytes((sky / place).read_bytes()[:size])
    told = prepared("sky-timelapse", sky, tmp_path / "sky").left_out
    assert "frame_7.jpg cannot be read as a picture" in told["train/a/a_1"]
    assert "frame_9.jpg cannot be read as a picture" in told["train/a/a_2"]


def test_an_interrupted_run_goes_on_where_it_stopped(sky, tmp_path, monkeypatch):
    made, make = [], preparing._make

    def stopping(name, *rest):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(name)
        return make(name, *rest)

    recipe = Recipe(kind="sky-timelapse", source=str(sky), size=16)
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_make", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare(recipe, tmp_path / "out", 1, lambda *_: None)
    assert json.loads((tmp_path / "out/prepared.json").read_bytes())["complete"] is False
    monkeypatch.setattr(
        preparing, "_make", lambda name, *rest: made.append(name) or make(name, *rest)
    )
    record = prepare(recipe, tmp_path / "out", 1, lambda *_: None)
    assert len(made) == len(set(made)) == len(record.taken) == 3
    assert record.complete
    (picture,) = (tmp_path / "out/train/a/a_1").glob("000019.png")
    picture.parent.rename(tmp_path / "gone")
    assert prepare(recipe, tmp_path / "out", 1, lambda *_: None) == record
    assert len(made) == 4  # what was lost is made again, and nothing else


def test_a_place_that_cannot_be_written_ends_the_run_and_is_no_fault_of_a_video(sky, tmp_path):
    (tmp_path / "out").mkdir()
    recipe = Recipe(kind="sky-timelapse", source=str(sky))
    preparing._write(preparing.Prepared(recipe), tmp_path / "out")
    (tmp_path / "out/train").write_text("in the way")
    with pytest.raises(VideoError, match=r"out/train.*; mend that, and run the same command again"):
        prepare(recipe, tmp_path / "out", 1, lambda *_: None)


@pytest.mark.parametrize(
    ("kind", "files", "told"),
    [
        ("ucf101", {"Archery/v_Archery_g01_c01.avi": ""}, r"holds no trainlist01\.txt; put the "),
        ("ucf101", {"trainlist01.txt": "../x.avi 1"}, r"trainlist01\.txt, line 1: got '\.\."),
        ("sky-timelapse", {"x/a.jpg": ""}, "no folder sky_train or sky_test; give the folder"),
        ("sky-timelapse", {"sky_train/x/a.jpg": ""}, r"nothing of it can be used; .*a\.jpg"),
        ("sky-timelapse", {"sky_train/a.txt": ""}, "nothing of it can be used; no video stands"),
        ("taichi", {"a.mp4": ""}, r"0 files \*metadata\*\.csv and no folder train or test"),
        ("taichi", {"t-metadata.csv": "video_id,start\n"}, r"has no column end; expected"),
        ("taichi", {"metadata.csv": TABLE + "a,0,9,0-0-8,9,8,8,train\n"}, "line 2: not enough"),
        ("taichi", {"metadata.csv": TABLE + "a,0,9,0-0-8-8,9,8,8,../x\n"}, "partition is '../x'"),
        ("taichi", {"metadata.csv": TABLE + "a,0,9\n"}, "line 2: a value is missing"),
        ("taichi", {"metadata.csv": "\x00\x80"}, "is no text"),
    ],
)  # fmt: skip
def test_a_set_of_another_layout_is_refused_in_one_line(tmp_path, kind, files, told):
    for name, text in files.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TrainingError, match=told):
        prepared(kind, tmp_path / "set", tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(sky, tmp_path):
    prepared("sky-timelapse", sky, tmp_path / "out")
    with pytest.raises(TrainingError, match="was prepared with size None, and now 32 is asked"):
        prepared("sky-timelapse", sky, tmp_path / "out", size=32)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    with pytest.raises(TrainingError, match=r"mine holds thesis\.txt and no prepared\.json"):
        prepared("sky-timelapse", sky, tmp_path / "mine")
    with pytest.raises(TrainingError, match="lies inside of"):
        prepared("sky-timelapse", sky, sky / "out")
    (tmp_path / "mine/prepared.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"cannot read .*prepared\.json: .*recipe"):
        prepared("sky-timelapse", sky, tmp_path / "mine")


def test_the_command_tells_what_was_taken_and_what_was_not(sky, tmp_path, capsys):
    (sky / "sky_train/a/a_1/frame_20.jpg").write_bytes(b"")
    words = ["data", "prepare", "sky-timelapse", str(sky), "--out", str(tmp_path / "out")]
    assert cli.run(words) == 0
    *left_out, last = capsys.readouterr().err.strip().splitlines()
    assert left_out[-1].startswith("left out: train/a/a_1: ")
    assert last == f"{tmp_path / 'out'}: 2 videos, 1 for train and 1 for test; 1 left out"
    assert cli.run([*words[:3], str(Path("gone")), *words[4:]]) == 1
    assert "gone is not a folder; give the folder that the set" in capsys.readouterr().err
