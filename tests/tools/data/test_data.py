import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from toy_films import levels, plain, write, write_pictures, write_video

from lvdm_engines.errors import ConfigError, TrainingError
from lvdm_rt.video.picture import to_pixels
from lvdm_tools.data import folder as videos
from lvdm_tools.data.clip import ClipSpec, check_divisible
from lvdm_tools.data.folder import Video, VideoFolder
from lvdm_tools.data.source import open_both, open_source
from lvdm_tools.data.video_file import count_frames, read_clip, size_and_rate

SPEC = ClipSpec(frames=4, size=(16, 16))


def write_with_b_frames(path, codec, times):
    """Frames of growing brightness, in groups of twelve with two B frames after every P frame."""
    pictures = plain([20 + 3 * number for number in range(len(times))], (32, 32))
    groups = {"gop_size": 12, "max_b_frames": 2, "bit_rate": 400_000}
    return write(path, pictures, codec, rate=25, times=times, **groups)


def test_held_out_synthetic_clips_differ_from_training_clips():
    train, unseen = open_both("synth", SPEC, seed=1)
    np.testing.assert_array_equal(train.clip(0), open_source("synth", SPEC, seed=1).clip(0))
    assert np.abs(train.clip(0).astype(int) - unseen.clip(0)).mean() > 3


@pytest.mark.parametrize(
    ("name", "codec", "times"),
    [
        ("a.ts", "libx264", range(60)),
        ("a.avi", "mpeg4", range(60)),
        ("b.avi", "libx264", range(60)),
        ("a.mpg", "mpeg2video", range(60)),
        ("a.flv", "libx264", range(60)),
        ("a.mkv", "libx264", range(60)),
        ("uneven.mp4", "libx264", [*range(30), *range(30, 90, 2)]),
    ],
)
def test_a_clip_is_what_decoding_from_the_first_frame_shows(tmp_path, name, codec, times):
    path = write_with_b_frames(tmp_path / name, codec, list(times))
    with av.open(str(path)) as container:
        whole = [to_pixels(frame) for frame in container.decode(video=0)]
    assert len(whole) == count_frames(path) == 60
    for start in (0, 1, 11, 12, 13, 30, 47, 53):
        clip = read_clip(path, start, ClipSpec(frames=4, size=(32, 32), stride=2))
        np.testing.assert_array_equal(clip, whole[start : start + 8 : 2])


def test_an_archive_of_frames_is_a_video_as_well(tmp_path):
    frames = np.stack(plain(range(60), (32, 32)))
    np.savez(tmp_path / "a.npz", frames=frames, fps=8.0)
    (tmp_path / "features.npz").write_bytes(b"of something else")
    listing = videos.look(tmp_path)
    assert listing.lengths == {tmp_path / "a.npz": 60}
    assert list(listing.skipped) == [tmp_path / "features.npz"]
    clip = read_clip(tmp_path / "a.npz", 11, ClipSpec(frames=4, size=(32, 32), stride=2))
    np.testing.assert_array_equal(clip, frames[11:19:2])
    assert size_and_rate(tmp_path / "a.npz") == ((32, 32), 8)
    write_pictures(tmp_path / "clip", list(range(20)))
    np.savez(tmp_path / "clip" / "poses.npz", poses=np.zeros(20))
    assert videos.look(tmp_path).lengths[tmp_path / "clip"] == 20


def test_frames_that_an_edit_list_leaves_out_are_not_counted(tmp_path):
    whole = write_with_b_frames(tmp_path / "whole.mp4", "libx264", list(range(60)))
    cut = tmp_path / "cut.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(cut), "w", options={"avoid_negative_ts": "disabled"}) as target,
    ):
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        skipped = 17 * int(Fraction(1, 25) / stream.time_base)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts - skipped, packet.dts - skipped
                packet.stream = copied
                target.mux(packet)
    assert count_frames(cut) == 43
    clip = read_clip(cut, 5, ClipSpec(frames=4, size=(32, 32)))
    np.testing.assert_array_equal(clip, read_clip(whole, 22, ClipSpec(frames=4, size=(32, 32))))


@pytest.mark.parametrize("part", ["1.mp4", "clip/frame_7.png"])
def test_sources_of_the_same_data_are_alike_wherever_they_lie(tmp_path, part):
    for number in range(3):
        write_video(tmp_path / "v" / f"{number}.mp4", levels(8 + number))
    write_pictures(tmp_path / "v" / "clip", levels(12))
    before = open_source(tmp_path / "v", SPEC).identity
    shutil.copytree(tmp_path / "v", tmp_path / "w")
    assert open_source(tmp_path / "w", SPEC, seed=5, held_out=True).identity == before
    changed = bytearray((tmp_path / "v" / part).read_bytes())
    changed[len(changed) // 2] ^= 1  # of the same name, size and length
    (tmp_path / "v" / part).write_bytes(changed)
    assert open_source(tmp_path / "v", SPEC).identity != before


def test_a_folder_that_is_opened_for_both_is_looked_at_once(tmp_path, caplog):
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", levels(12))
    (tmp_path / "text.avi").write_text("not a video")
    train, unseen = open_both(tmp_path, SPEC)
    assert caplog.text.count("skipping a video") == 1
    np.testing.assert_array_equal(
        unseen.clip(3), open_source(tmp_path, SPEC, held_out=True).clip(3)
    )
    np.testing.assert_array_equal(train.clip(3), open_source(tmp_path, SPEC).clip(3))


def test_frames_are_cropped_in_the_middle_before_resizing(tmp_path):
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, 16:48] = 200
    path = write(tmp_path / "a.mkv", [picture], "ffv1", pix_fmt="bgr0")
    assert read_clip(path, 0, ClipSpec(frames=1, size=(16, 16))).min() > 190


def test_a_single_video_is_split_in_time(tmp_path):
    write_video(tmp_path / "only.mp4", levels(30))
    train = open_source(tmp_path, SPEC).videos[0]
    unseen = open_source(tmp_path, SPEC, held_out=True).videos[0]
    assert (train.first, train.last, unseen.first, unseen.last) == (0, 24, 24, 30)


def test_damaged_files_are_skipped_with_a_warning_and_counted(tmp_path, caplog):
    good = write_video(tmp_path / "good.mp4", levels(20))
    (tmp_path / "truncated.mp4").write_bytes(good.read_bytes()[:200])
    (tmp_path / "text.avi").write_text("not a video")
    (tmp_path / "notes.txt").write_text("ignored: no video suffix")
    folder = open_source(tmp_path, SPEC)
    assert sorted(path.name for path in folder.skipped) == ["text.avi", "truncated.mp4"]
    assert "skipping a video (2 so far)" in caplog.text
    assert folder.clip(0).shape == (4, 16, 16, 3)


def test_a_video_that_fails_while_reading_is_replaced_by_another(tmp_path):
    write_video(tmp_path / "a.mp4", levels(20))
    lost = write_video(tmp_path / "b.mp4", levels(20))
    write_video(tmp_path / "z.mp4", levels(20))
    folder = open_source(tmp_path, SPEC)
    lost.write_bytes(b"gone bad")
    clips = [folder.clip(index) for index in range(8)]
    assert len(clips) == 8
    assert list(folder.skipped) == [lost]


def test_a_clip_does_not_depend_on_what_was_read_before(tmp_path, monkeypatch):
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", levels(12))

    def damaged_at_its_end(path, start, spec):
        if path.name == "a.mp4" and start > 4:
            raise TrainingError(f"{path} is damaged near frame {start}")
        return np.full((*spec.size, 3), ord(path.stem) + start, np.uint8)

    monkeypatch.setattr(videos, "read_clip", damaged_at_its_end)
    spec = ClipSpec(frames=2, size=(16, 16))
    whole = VideoFolder(spec, 0, tuple(Video(tmp_path / f"{n}.mp4", 0, 12) for n in "ab"))
    clips = [whole.clip(index).flat[0] for index in range(24)]
    assert len(whole.skipped) == 1
    for index, expected in enumerate(clips):
        fresh = VideoFolder(spec, 0, whole.videos)
        assert fresh.clip(index).flat[0] == expected


def test_a_folder_whose_videos_all_fail_says_so(tmp_path):
    only = write_video(tmp_path / "a.mp4", levels(20))
    folder = open_source(tmp_path, SPEC)
    only.write_bytes(b"gone bad")
    with pytest.raises(TrainingError, match="no clip could be read"):
        folder.clip(0)


def test_a_folder_that_cannot_be_listed_is_named_and_an_inner_one_skipped(
    tmp_path, monkeypatch, caplog
):
    folder = tmp_path / "v"
    write_video(folder / "a.mp4", levels(12))
    write_video(folder / "inner" / "b.mp4", levels(12))
    locked, scandir = [folder / "inner"], os.scandir  # patched, because nothing is locked to root

    def refuse(path):
        if Path(path) in locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [video.path.name for video in open_source(folder, SPEC).videos] == ["a.mp4"]
    assert f"skipping the folder {folder / 'inner'}: Permission denied" in caplog.text
    locked.append(folder)
    with pytest.raises(TrainingError, match=r"cannot read .*/v: Permission denied; change the"):
        open_source(folder, SPEC)


@pytest.mark.parametrize(
    ("folder", "told"), [("nowhere", "nowhere is not a folder"), (".", "holds no readable video")]
)
def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path, folder, told):
    with pytest.raises(TrainingError, match=told):
        open_source(tmp_path / folder, SPEC)


def test_a_folder_of_unreadable_videos_says_why(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(TrainingError, match=r"1 skipped: .*text.mp4 cannot be read"):
        open_source(tmp_path, SPEC)


def test_clips_longer_than_every_video_are_refused(tmp_path):
    write_video(tmp_path / "a.mp4", levels(10))
    with pytest.raises(TrainingError, match="the 31 frames that clips of 4 at stride 10"):
        open_source(tmp_path, ClipSpec(frames=4, size=(16, 16), stride=10))


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (ClipSpec(6, (16, 16)), "frames 6 is not divisible .* 4; use 4 or 8"),
        (ClipSpec(4, (20, 16)), "height 20"),
        (ClipSpec(4, (16, 4)), "width 4 is not divisible .* 8; use 8"),
    ],
)
def test_clips_that_the_downsample_does_not_divide_are_refused(spec, named):
    with pytest.raises(ConfigError, match=named):
        check_divisible(spec, (4, 8, 8))


def test_clips_without_frames_are_refused():
    with pytest.raises(ConfigError, match="frames is 0"):
        open_source("synth", ClipSpec(0, (16, 16)))
