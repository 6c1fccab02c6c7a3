"""Sheets and comparisons: which frames stand where, and what is refused in one line."""

import json
from fractions import Fraction

import numpy as np
import pytest
from toy_files import content
from toy_films import plain
from toy_films import write as write_film

from lvdm_rt.commands import lettering
from lvdm_rt.video import ReadSpec, VideoSpec, open_writer, read_frames
from lvdm_rt.video.look import look

GAP, LINE = 2, lettering.HEIGHT


@pytest.fixture
def video(tmp_path):
    """Write grey frames of the given levels."""

    def video(name, levels, size=(12, 16), fps=8):
        spec = VideoSpec(frames=len(levels), size=size, fps=Fraction(fps))
        with open_writer(f"{tmp_path}/{name}", spec) as writer:
            writer.write(np.stack(plain(levels, size)))
        return name

    return video


def read(path, size, fps=8):
    return np.concatenate(list(read_frames(path, ReadSpec(size=size, fps=Fraction(fps)))))


def test_a_sheet_shows_every_nth_frame_in_rows(command, video, tmp_path):
    first, second = video("a.npz", range(0, 70, 10)), video("b/", [200, 210, 220])
    words = ("sheet", first, second, "-o", "s.png", "--every", "2", "--columns", "3")
    code, out, err = command(*words)
    assert (code, out) == (0, "")
    size = (3 * 14 + GAP, 3 * 18 + GAP)
    assert err == f"lvdm-rt: wrote s.png: 6 of 10 frames, {size[1]}×{size[0]} pixels\n"
    (sheet,) = read(tmp_path / "s.png", size)
    shown = [sheet[GAP + 14 * row : 14 * row + 14, GAP:, 0].reshape(12, 3, 18) for row in range(3)]
    assert [[int(tile) for tile in row[5, :, 5]] for row in shown] == [
        [0, 20, 40],
        [60, 24, 24],  # the ground
        [200, 220, 24],
    ]
    for row in shown:  # each frame is whole, and between them is the ground
        assert (row[:, :, :16] == row[:1, :, :1]).all()
        assert (row[:, :, 16:] == 24).all()


def test_without_a_number_each_video_fills_one_row(command, video, tmp_path):
    videos = [video("a.mp4", range(20, 120)), video("b.npz", range(3))]
    assert command("sheet", *videos, "-o", "s.png")[0] == 0
    (sheet,) = read(tmp_path / "s.png", (2 * 14 + GAP, 8 * 18 + GAP))
    middle = sheet[8, GAP + 8 :: 18, 0].astype(int)
    assert np.abs(middle - range(20, 120, 13)).max() <= 3  # H.264


def test_labels_stand_above_and_leave_the_frames_as_they_are(command, video, tmp_path):
    words = ("sheet", video("a.npz", range(0, 120, 10)), "--every", "1", "--columns", "6")
    assert command(*words, "-o", "s.png", "--labels")[0] == 0
    height, width = 2 * (14 + LINE) + GAP, 6 * 18 + GAP
    (sheet,) = read(tmp_path / "s.png", (height, width))
    assert [int(level) for level in sheet[GAP + LINE + 5, GAP + 5 :: 18, 0]] == [
        0,
        10,
        20,
        30,
        40,
        50,
    ]
    for row, told in enumerate((" 0-5 / 12", " 6-11 / 12")):
        top = GAP + row * (14 + LINE)
        np.testing.assert_array_equal(
            sheet[top : top + LINE, GAP:], lettering.line(width - GAP, "a.npz", told)
        )


def test_letters_are_what_they_should_be():
    dots = (lettering.line(30, "aé", "?")[3:13:2, 3:27:2, 0] > 100).astype(int)
    assert ["".join(map(str, row)) for row in dots[:, :3]] == ["010", "101", "111", "101", "101"]
    np.testing.assert_array_equal(dots[:, 4:7], dots[:, 8:11])  # what is unknown is a ?
    narrow = lettering.line(44, "a-long-name.mp4", " 9")
    np.testing.assert_array_equal(narrow, lettering.line(44, "a-l 9"))


def test_a_comparison_stands_side_by_side_and_ends_with_the_shortest(command, video, tmp_path):
    names = [video("a.npz", [10, 20, 30]), video("b/", [110, 120, 130, 140])]
    code, _, err = command("compare", *names, "-o", "c.npz")
    assert code == 0
    assert "3 frames of 2 videos, 34×12 pixels; they have 3, 4 frames, and it ends with" in err
    frames = read(tmp_path / "c.npz", (12, 34))
    assert frames[:, 5, [5, 16, 17, 18, 30], 0].tolist() == [
        [level, 24, 24, level + 100, level + 100] for level in (10, 20, 30)
    ]
    assert json.loads((tmp_path / "c.npz.json").read_text())["compare"] == ["a.npz", "b"]


def test_a_comparison_may_have_labels_and_go_to_a_pipe(command, video, tmp_path):
    names = [video("a.npz", [10, 20]), video("b.npz", [30, 40])]
    assert command("compare", *names, "--labels", "-o", "c.mp4")[0] == 0
    (first, _) = read(tmp_path / "c.mp4", (12 + LINE, 34))
    told = np.abs(first[:LINE, :16].astype(int) - lettering.line(16, "a.npz"))
    assert told.mean() < 12  # H.264
    code, out, err = command("compare", *names, "-o", "-")
    assert (code, out[:10]) == (0, "YUV4MPEG2 ")
    assert err == "lvdm-rt: wrote -: 2 frames of 2 videos, 34×12 pixels\n"


def test_sizes_and_rates_are_brought_together_where_that_is_asked(command, video, tmp_path):
    names = [video("a.npz", [10, 20, 30], fps=8), video("b.npz", [40] * 6, (24, 24), fps=16)]
    words = ("compare", *names, "-o", "c.npz", "--size", "8", "--fps", "16")
    assert command(*words)[0] == 0
    frames = read(tmp_path / "c.npz", (8, 18), 16)
    assert frames[:, 4, 2, 0].tolist() == [10, 10, 20, 20, 30, 30]
    assert command("sheet", *names, "-o", "s.png", "--size", "16x12")[0] == 0


def test_a_film_is_looked_at_as_it_is_shown(video, tmp_path):
    path = write_film(
        tmp_path / "wide.mp4", plain([10] * 4, (32, 48)), rate=25, sample_aspect_ratio=Fraction(2)
    )
    assert (look(path).size, look(path).fps) == ((32, 96), 25)
    assert look(tmp_path / video("b/", [1, 2])).fps is None
    assert look(tmp_path / "b/000001.png").fps is None
    assert look(tmp_path / video("c.npz", [1, 2], fps=12)).fps == 12


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sheet", "a.npz", "large.npz"), "16×12 pixels and large.npz of 32×24; give the size"),
        (("compare", "a.npz", "large.npz"), "16×12 pixels and large.npz of 32×24; give the size"),
        (("compare", "a.npz", "fast.npz"), "8 frames per second and fast.npz 16; give the rate"),
        (("compare", "a.npz"), "got a.npz alone, expected two videos or more"),
        (("sheet", "a.npz", "gone.mp4"), "cannot read gone.mp4: there is no such file"),
        (("compare", "a.npz", "empty"), "cannot read empty: it is a directory without pictures"),
        (("sheet", "a.npz", "text.mp4"), "cannot read text.mp4: "),
        (("sheet", "a.npz", "--size", "16000", "--every", "1"), "raise --every, or give a smaller"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(command, video, tmp_path, words, told):
    video("a.npz", [1, 2, 3])
    video("large.npz", [1], (24, 32))
    video("fast.npz", [1], fps=16)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no film")
    code, _, err = command(*words, "-o", "out.png" if words[0] == "sheet" else "out.npz")
    assert (code, err.count("\n")) == (1, 1)
    assert told in err
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("s.mp4", "a sheet is one picture; give a name with .png"),
        ("gone/s.png", "there is no directory gone; make it first"),
        ("mine.png", "it exists; --force replaces it"),
        ("folder.png", "it is no file; choose another name"),
    ],
)
def test_a_sheet_goes_to_a_new_picture_only(command, video, tmp_path, out, told):
    (tmp_path / "mine.png").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    code, _, err = command("sheet", video("a.npz", [1]), "-o", out)
    assert (code, told in err) == (1, True)
    assert (tmp_path / "mine.png").read_text() == "mine"
    assert command("sheet", "a.npz", "-o", "mine.png", "--force")[0] == 0
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("size", ["big", "0", "8x", "1x2x3"])
def test_what_is_no_size_is_a_usage_error(command, size):
    code, _, err = command("sheet", "a.npz", "-o", "s.png", "--size", size)
    assert (code, "is not a size" in err) == (2, True)


def test_what_is_read_is_not_written_over(command, video, tmp_path):
    video("a.gif", [9, 99])
    video("b.gif", [9, 99])
    (tmp_path / "a.gif").rename(tmp_path / "a.png")  # what it holds is looked at, not its name
    before = content(tmp_path)
    for line, out in ((("sheet", "a.png"), "a.png"), (("compare", "a.png", "b.gif"), "b.gif")):
        code, _, err = command(*line, "-o", out, "--force")
        assert (code, content(tmp_path)) == (1, before)
        assert f"{out} is or holds what is read; choose another OUT" in err
