import hashlib
import json
import os
import re
from fractions import Fraction
from pathlib import Path
from unittest.mock import Mock

import av
import numpy as np
import pytest
from toy_files import names

from lvdm_engines.errors import OptionsError, VideoError
from lvdm_rt.video import VideoSpec, open_writer, output_kind, sidecar_path, writer


def still(**changes):
    """A video of one small frame."""
    return VideoSpec(**{"frames": 1, "size": (16, 16), "fps": Fraction(8), **changes})


SIZES = [(12, 64, 64), (7, 33, 47), (1, 16, 24)]
# Smooth, nearly grey frames: what is left is the codecs' own loss.
LEAST_PSNR = {"sky.mp4": 40, "sky.webm": 38, "sky.gif": 29}


@pytest.mark.parametrize(("count", "height", "width"), SIZES)
@pytest.mark.parametrize("name", LEAST_PSNR)
def test_every_frame_comes_back_close_to_what_was_written(
    scene, write, read, psnr, name, count, height, width
):
    frames = scene(count, height, width)
    path = write(name, frames)
    padded = (height + height % 2, width + width % 2) if name == "sky.mp4" else (height, width)
    back = read(path, padded)[:, :height, :width]
    assert back.shape == frames.shape
    assert psnr(back, frames) > LEAST_PSNR[name]


@pytest.mark.parametrize("fps", [8, Fraction(30000, 1001), Fraction(15, 2), 60])
@pytest.mark.parametrize("name", ["sky.mp4", "sky.webm"])
def test_the_frame_rate_is_kept(scene, write, read, name, fps):
    path = write(name, scene(30, 16, 16), fps=fps)
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(float(fps), rel=1e-3)
    assert len(read(path, (16, 16), fps)) == 30


@pytest.mark.parametrize(
    ("name", "codecs", "colours"),
    [("sky.mp4", {"h264"}, ("yuv420p", 1)), ("sky.webm", {"vp9", "libvpx-vp9"}, ("yuv420p", 1))],
)
def test_a_video_is_what_browsers_play(scene, write, name, codecs, colours):
    with av.open(str(write(name, scene(4, 16, 16)))) as container:
        context = container.streams.video[0].codec_context
        assert context.name in codecs
        assert (context.pix_fmt, context.colorspace) == colours


def test_the_index_of_an_mp4_comes_first(scene, write):
    data = write("sky.mp4", scene(4, 16, 16)).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_npz_holds_the_exact_frames(scene, write):
    frames = scene(7, 33, 47)
    path = write("sky.npz", frames, fps=Fraction(15, 2), settings='{"seed": 7}')
    with np.load(path) as archive:
        assert np.array_equal(archive["frames"], frames)
        assert float(archive["fps"]) == 7.5
        assert str(archive["settings"]) == '{"seed": 7}'


@pytest.mark.parametrize("name", ["frames", "frames.out/"])
def test_a_directory_gets_one_exact_png_per_frame(scene, write, read, name):
    frames = scene(3, 33, 47)
    path = write(f"{name}", frames)
    files = sorted(path.iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    back = np.concatenate([read(file, (33, 47)) for file in files])
    assert np.array_equal(back, frames)


def test_y4m_goes_to_the_given_stream_and_reads_back(scene, read, psnr, tmp_path):
    frames = scene(5, 33, 47)
    spec = VideoSpec(frames=5, size=(33, 47), fps=Fraction(15, 2))
    path = tmp_path / "sky.y4m"
    with path.open("wb") as stream, open_writer("-", spec, stdout=stream) as writer:
        writer.write(frames)
    assert path.read_bytes().startswith(b"YUV4MPEG2 W47 H33 F15:2 Ip A1:1 C444\n")
    assert psnr(read(path, (33, 47), Fraction(15, 2)), frames) > 45


@pytest.mark.parametrize("name", ["sky.mp4", "sky.webm", "sky.gif"])
def test_settings_go_into_the_comment_and_the_sidecar(scene, write, name):
    settings = json.dumps({"seed": 7, "note": "é" * 300})
    path = write(name, scene(3, 16, 16), settings=settings)
    with av.open(str(path)) as container:
        tags = {key.lower(): text for key, text in container.metadata.items()}
    assert json.loads(tags["comment"]) == json.loads(settings)
    data = path.read_bytes()
    file = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert json.loads(sidecar_path(path).read_text()) == json.loads(settings) | {"file": file}
    assert sidecar_path(path).name == f"{name}.json"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sky.mp4", "sky.webm", "sky.gif", "sky.npz"])
def test_the_same_frames_give_the_same_bytes(scene, write, name):
    frames = scene(40, 34, 48)  # of which x264's fast macroblock tree makes a few files
    assert len({write(name, frames, settings="{}").read_bytes() for _ in range(6)}) == 1


@pytest.mark.parametrize("name", ["sky.mp4", "sky.webm", "sky.gif", "sky.npz", "frames"])
def test_nothing_has_the_final_name_before_the_end_and_nothing_stays_after_an_error(
    scene, tmp_path, name
):
    frames = scene(4, 16, 16)
    spec = still(frames=8, settings="{}")

    def interrupted() -> None:
        with open_writer(str(tmp_path / name), spec) as writer:
            writer.write(frames)
            (hidden,) = tmp_path.iterdir()
            assert re.fullmatch(rf"\.{name}\.[0-9a-f]{{8}}\.partial", hidden.name)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["sky.mp4", "frames"])
def test_what_a_killed_run_left_is_replaced(scene, write, tmp_path, name):
    part = tmp_path / f".{name}.0123abcd.partial"
    (tmp_path / f".{name}.json.0123abcd.partial").write_bytes(b"{")
    if name == "frames":
        part.mkdir()
        (part / "000099.png").write_bytes(b"old")
    else:
        part.write_bytes(b"old" * 9999)
    path = write(name, scene(2, 16, 16))
    assert names(tmp_path) == [name]
    assert not (path / "000099.png").exists()


def test_a_finished_video_replaces_an_older_one_only_at_the_end(scene, write, tmp_path):
    path = write("sky.npz", scene(2, 16, 16))
    before = path.read_bytes()
    with (
        pytest.raises(VideoError, match="got 2 frames, expected 3"),
        open_writer(str(path), still(frames=3)) as writer,
    ):
        writer.write(scene(2, 16, 16))
    assert path.read_bytes() == before
    assert names(tmp_path) == ["sky.npz"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 16, 18, 3), np.uint8), r"uint8 \(2, 16, 18, 3\), expected uint8"),
        (np.zeros((2, 16, 16, 3), np.float32), r"got frames float32"),
        (np.zeros((16, 16, 3), np.uint8), r"expected uint8 \(f, 16, 16, 3\)"),
        (np.zeros((5, 16, 16, 3), np.uint8), r"more than the 4 frames"),
    ],
)
def test_wrong_frames_are_refused_by_what_they_are(tmp_path, frames, message):
    with (
        pytest.raises(VideoError, match=message),
        open_writer(str(tmp_path / "sky.npz"), still(frames=4)) as writer,
    ):
        writer.write(frames)


def test_a_quality_that_a_format_has_not_is_refused(tmp_path):
    with pytest.raises(OptionsError, match="got crf 10"):
        open_writer(str(tmp_path / "a.gif"), still(crf=10))


@pytest.mark.parametrize(
    ("out", "kind"),
    [
        ("a.mp4", "mp4"), ("A.MP4", "mp4"), ("b.webm", "webm"), ("c.gif", "gif"), ("d.npz", "npz"),
        ("-", "y4m"), ("frames", "png"), ("frames.v2/", "png"),
    ],
)  # fmt: skip
def test_the_suffix_chooses_the_format(out, kind):
    assert output_kind(out) == kind


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("sky.avi", r"suffix '.avi' is not one of .mp4, .webm, .gif, .npz"),
        *((out, "it names no file") for out in (".", "", "/", "a/..")),
    ],
)
def test_a_place_of_no_known_format_or_name_is_refused(out, message):
    with pytest.raises(OptionsError, match=message):
        output_kind(out)


@pytest.mark.parametrize(
    "wrong", [{"frames": 0}, {"size": (0, 16)}, {"size": (16, 99999)}, {"fps": Fraction(0)}]
)
def test_an_impossible_video_is_refused(wrong):
    with pytest.raises(OptionsError, match="expected"):
        still(**wrong)


def test_a_missing_encoder_is_named_with_the_way_out(monkeypatch, tmp_path):
    missing = av.codec.codec.UnknownCodecError("libx264")
    monkeypatch.setattr(av, "Codec", Mock(side_effect=missing))
    with pytest.raises(VideoError, match=r"no libx264 encoder; write .npz instead, or install"):
        open_writer(str(tmp_path / "sky.mp4"), still())
    assert names(tmp_path) == []


def test_bad_places_are_refused_before_the_first_frame(scene, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    for out, message in [
        ("no/such/sky.mp4", "there is no directory"),
        ("full", "is not an empty directory"),
        ("full/mine.txt/x.mp4", "there is no directory"),
    ]:
        with pytest.raises(VideoError, match=message):
            open_writer(str(tmp_path / out), still())
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"


def test_a_name_with_a_colon_or_spaces_is_a_file_name(scene, write, read):
    assert len(read(write("sky: 7 %d.mp4", scene(3, 16, 16)), (16, 16))) == 3


def test_a_reader_that_stops_is_one_clear_error():
    closed = Mock(**{"write.side_effect": BrokenPipeError(32, "Broken pipe")})
    with pytest.raises(VideoError, match="the program that reads it has stopped"):
        open_writer("-", still(), stdout=closed)
    assert not Path("-").exists()


def test_an_interrupt_while_the_file_is_opened_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(kind, part, spec):
        part.write_bytes(b"begun")
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_file_sink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_writer(str(tmp_path / "a.npz"), still(size=(8, 8)))
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["sky.mp4", "sky.webm", "sky.gif", "sky.npz", "frames"])
def test_a_name_appears_only_after_everything_behind_it_is_on_the_disk(
    scene, write, tmp_path, monkeypatch, name
):
    synced, real_sync, real_replace = [], os.fsync, Path.replace

    def fsync(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        real_sync(descriptor)

    def replace(self, target):
        files = [*self.iterdir(), self] if self.is_dir() else [self]
        assert {file.stat().st_ino for file in files} <= set(synced)
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write(name, scene(3, 16, 16), settings="{}")
    assert synced[-1] == tmp_path.stat().st_ino


def test_a_disk_that_fails_at_the_very_end_is_an_error_and_leaves_nothing(
    scene, write, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(122, "Disk quota exceeded")))
    with pytest.raises(VideoError, match="your quota is used up"):
        write("sky.webm", scene(3, 16, 16), settings="{}")
    assert names(tmp_path) == []
