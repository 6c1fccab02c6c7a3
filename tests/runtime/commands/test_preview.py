"""`generate --preview`: what it writes, when, and which places it refuses."""

import json

import av
import numpy as np
import pytest

from lvdm_engines.errors import VideoError
from lvdm_rt.commands import previewing
from lvdm_rt.commands.previewing import PreviewFile
from lvdm_rt.progress import Preview


def pictures(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def clips(count, level=200):
    shown = np.full((4, 2, 2, 3), level, np.uint8)
    return [Preview(video, "predict", 0, shown) for video in range(count)]


def test_a_png_has_the_new_latents_of_a_clip_side_by_side(generate, tmp_path):
    generate("sky.npz", "--preview", "now.png")
    (picture,) = pictures(tmp_path / "now.png")
    assert picture.shape == (16, 4 * 16, 3)
    assert not list(tmp_path.glob(".now.png*"))


def test_a_gif_moves_through_them_with_a_row_for_each_video(generate, tmp_path):
    generate("sky.npz", "--preview", "now.gif", "--videos", "2")
    frames = pictures(tmp_path / "now.gif")
    assert [frame.shape for frame in frames] == [(2 * 16, 16, 3)] * 4
    assert b"NETSCAPE2.0" in (tmp_path / "now.gif").read_bytes()  # it loops


def test_a_preview_leaves_video_and_sidecar_as_they_are(generate, tmp_path, settings_of):
    generate("a.npz", "--preview", "now.png")
    generate("b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert "preview" not in settings_of("a.npz")


def test_it_is_written_now_and_then_and_seldom_where_writing_is_slow(tmp_path, monkeypatch):
    now, written = [100.0], []

    def write(path, rows, size):
        written.append(now[0])
        now[0] += 0.1

    monkeypatch.setattr(previewing, "write_glimpse", write)
    shown = PreviewFile(tmp_path / "now.png", (16, 16), clock=lambda: now[0])
    for _ in range(40):
        shown.show(clips(1))
        now[0] += 0.1
    assert written == pytest.approx([100.0, 101.1, 102.2, 103.3])


def test_large_batches_and_large_frames_become_a_small_picture(tmp_path):
    PreviewFile(tmp_path / "now.png", (256, 512)).show(clips(20))
    (picture,) = pictures(tmp_path / "now.png")
    assert picture.shape == (8 * 64, 4 * 128, 3)
    assert (picture == 200).all()


def test_a_disk_that_fails_is_told_once_and_ends_no_run(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise VideoError("the disk is full")

    monkeypatch.setattr(previewing, "write_glimpse", full)
    shown = PreviewFile(tmp_path / "now.png", (16, 16))
    shown.show(clips(1))
    shown.show(clips(1))
    assert [record.message for record in caplog.records] == [
        "the preview stays as it is: the disk is full"
    ]


@pytest.mark.parametrize(
    ("out", "preview", "message"),
    [
        ("sky.npz", "now.jpg", "a preview is a picture; give a name with .png or .gif"),
        ("sky.gif", "sky.gif", "sky.gif lies where the video goes, sky.gif"),
        ("frames/", "frames/now.png", "lies where the video goes, frames/"),
        ("sky.npz", "nowhere/now.png", "there is no directory nowhere; make it first"),
        ("sky.npz", "there.png", "it exists; --force replaces it, or choose another name"),
        ("sky.npz", "folder.png", "it is no file; choose another name"),
    ],
)
def test_what_cannot_be_a_preview_is_refused_before_sampling(
    generate, tmp_path, out, preview, message
):
    (tmp_path / "there.png").write_bytes(b"somebody's")
    (tmp_path / "folder.png").mkdir()
    assert message in generate(out, "--preview", preview, code=1)
    assert (tmp_path / "there.png").read_bytes() == b"somebody's"
    assert not (tmp_path / out).exists()


def test_a_preview_of_before_goes_with_force(generate, tmp_path):
    generate("sky.npz", "--preview", "now.png")
    generate("sky.npz", "--preview", "now.png", "--force")


def test_a_bundle_without_a_map_is_told_how_to_get_one(generate, make_bundle, tmp_path):
    blind = make_bundle()
    told = json.loads((blind / "manifest.json").read_bytes())
    (blind / "manifest.json").write_text(json.dumps(told | {"preview": None}))
    err = generate("sky.npz", "--preview", "now.png", bundle=blind, code=1)
    assert "toy has no map from latents to colours in its manifest" in err
    assert "export the bundle again, or leave the preview out" in err
