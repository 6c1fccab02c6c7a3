import os

import numpy as np
import pytest
from toy_films import levels, write_pictures, write_video

from lvdm_engines.errors import TrainingError
from lvdm_tools.data.clip import ClipSpec
from lvdm_tools.data.source import open_both, open_source
from lvdm_tools.data.video_file import read_clip

SPEC = ClipSpec(frames=4, size=(16, 16))


@pytest.mark.parametrize("place", ["clip", "video/clip", "."])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_folder_of_pictures_is_a_video_in_the_order_of_their_numbers(tmp_path, place, kind):
    values = levels(14)
    write_pictures(tmp_path / "data" / place, values, kind)
    (video,) = open_source(tmp_path / "data", SPEC).videos
    assert (video.path, video.last) == (tmp_path / "data" / place, 12)
    clip = read_clip(video.path, 3, ClipSpec(frames=4, size=(16, 16), stride=3))
    assert clip.shape == (4, 16, 16, 3)
    assert np.abs(clip.mean((1, 2, 3)) - values[3:13:3]).max() < 2  # JPEG


def test_videos_and_folders_of_pictures_are_shared_out_together(tmp_path):
    for number in range(6):
        write_video(tmp_path / f"{number}.mp4", levels(6))
        write_pictures(tmp_path / f"{number}" / "clip", levels(6))
    (tmp_path / "cover.png").write_bytes(b"beside videos: no frame of any")
    train, unseen = open_both(tmp_path, SPEC)
    assert (len(train.videos), len(unseen.videos)) == (11, 1)
    assert {v.path for v in train.videos}.isdisjoint(v.path for v in unseen.videos)
    assert train.clip(2).shape == (4, 16, 16, 3)
    assert not train.skipped


def test_a_picture_that_cannot_be_read_is_named_in_one_line(tmp_path):
    folder = write_pictures(tmp_path / "clip", levels(12))
    (folder / "frame_6.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"frame_6\.png cannot be read as a picture: .+"):
        read_clip(folder, 4, SPEC)
    (folder / "frame_1.png").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"1 skipped: .*frame_1\.png cannot be read"):
        open_source(tmp_path, SPEC)


def test_a_picture_that_is_a_link_to_nothing_is_named_in_one_line(tmp_path):
    folder = write_pictures(tmp_path / "clip", levels(12))
    last = max(folder.iterdir())
    last.unlink()
    last.symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(TrainingError, match=rf"cannot read .*{last.name}: No such file"):
        _ = open_source(tmp_path, SPEC).identity


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("frame_1.png", r"no readable video \(1 skipped: .*frame_1\.png: it is no ordinary file"),
        ("frame_7.png", r"cannot read .*frame_7\.png: it is no ordinary file; .* remove it"),
    ],
)
def test_a_pipe_among_pictures_is_not_waited_for(tmp_path, name, told):
    folder = write_pictures(tmp_path / "clip", levels(12))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(TrainingError, match=told):
        _ = open_source(tmp_path, SPEC).identity
    with pytest.raises(TrainingError, match=rf"{name}: it is no ordinary file; remove it"):
        read_clip(folder, 0, ClipSpec(frames=12, size=(16, 16)))


def test_a_folder_that_loses_its_pictures_counts_as_damaged(tmp_path):
    lost = write_pictures(tmp_path / "clip", levels(12))
    folder = open_source(tmp_path, SPEC)
    for picture in lost.iterdir():
        picture.unlink()
    with pytest.raises(TrainingError, match=r"no clip .*clip cannot be decoded near frame"):
        folder.clip(0)
