from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import toy_films

from lvdm_engines.errors import VideoError
from lvdm_rt.video import ReadSpec, read_frames, read_last_frames
from lvdm_rt.video.reader import picture_files


def encode(path, frames, **fields):
    """Write an MP4 directly, with fields that our own writer never sets."""
    plain = {"options": {"crf": "10", "bf": "2"}, "pix_fmt": "yuv444p"}
    return toy_films.write(path, frames, "libx264", **plain, **fields)


@pytest.mark.parametrize("fps", [4, 8, 12, 16, Fraction(24000, 1001)])
@pytest.mark.parametrize("name", ["in.mp4", "in.webm", "in.gif"])
def test_the_asked_rate_keeps_the_pace(scene, write, read, name, fps):
    path = write(name, scene(16, 16, 16), fps=8)  # two seconds
    assert len(read(path, (16, 16), fps)) == pytest.approx(float(2 * fps), abs=1)


@pytest.mark.parametrize("name", ["in.webm", "in.gif"])
def test_time_stamps_of_milliseconds_and_more_lose_no_frame(scene, write, read, name):
    back = read(write(name, scene(60, 16, 16), fps=30), (16, 16), 30)
    assert len(back) == 60
    assert all(not np.array_equal(a, b) for a, b in pairwise(back))


def test_half_the_rate_takes_every_second_frame_and_twice_the_rate_every_frame_twice(
    scene, write, read, psnr
):
    frames = scene(16, 32, 32)
    path = write("in.mp4", frames, fps=8)
    slow, fast = read(path, (32, 32), 4), read(path, (32, 32), 16)
    assert (len(slow), len(fast)) == (8, 32)
    assert psnr(fast[::2], frames) > 35
    assert np.array_equal(fast[0::2], fast[1::2])
    assert psnr(slow, frames[1::2]) > 35  # the last one among them


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (48, 16), (16, 48), (33, 47), (1, 1)])
def test_frames_come_in_the_asked_size(scene, write, read, size):
    assert read(write("in.webm", scene(2, 33, 51)), size).shape == (2, *size, 3)


@pytest.mark.parametrize(("width", "shape"), [(96, 1), (32, 2)], ids=["wide", "of wide pixels"])
def test_the_centre_is_kept(tmp_path, read, width, shape):
    frames = np.zeros((2, 32, width, 3), np.uint8)
    side = 32 // shape
    frames[:, :, (width - side) // 2 : (width + side) // 2] = 200
    path = encode(tmp_path / "wide.mp4", frames, sample_aspect_ratio=Fraction(shape))
    assert np.abs(read(path, (16, 16))[:, 2:-2, 2:-2].astype(int) - 200).max() < 12


def test_a_turned_video_is_read_upright(tmp_path, read, scene):
    frames = np.zeros((3, 32, 48, 3), np.uint8)
    frames[:, :16] = 220  # bright on top as stored
    plain = encode(tmp_path / "plain.mp4", frames)
    turned = tmp_path / "turned.mp4"
    with av.open(str(plain)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip(f"PyAV {av.__version__} cannot write a turned video; 18 can")
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    back = read(turned, (48, 32))
    with av.open(str(turned)) as container:
        rotation = next(container.decode(video=0)).rotation
    expected = np.rot90(frames[0], round(rotation / 90))
    assert rotation in {90, -90}
    assert np.abs(back[0].astype(int) - expected).mean() < 8


def test_a_still_picture_is_a_video_of_one_frame(scene, write, read):
    frames = scene(1, 16, 16)
    path = write("frames", frames) / "000000.png"
    assert np.array_equal(read(path, (16, 16)), frames)


def test_a_film_that_is_named_as_a_picture_is_told(scene, write, read, caplog):
    frames = write("in.gif", scene(3, 16, 16))
    frames = frames.rename(frames.with_name("film.png"))
    assert len(read(frames, (16, 16))) == 1
    assert "film.png holds more than one picture, of which the first is taken" in caplog.text


def test_only_the_last_frames_are_kept_when_only_they_are_asked(scene, write, read):
    path = write("in.gif", scene(20, 16, 16))
    whole = read(path, (16, 16))
    spec = ReadSpec(size=(16, 16), fps=Fraction(8), chunk=3)
    assert np.array_equal(read_last_frames(path, spec, 4), whole[-4:])
    assert np.array_equal(read_last_frames(path, spec, 99), whole)


def test_chunks_have_at_most_the_asked_length_and_stop_early_without_harm(scene, write):
    path = write("in.mp4", scene(10, 16, 16))
    chunks = read_frames(path, ReadSpec(size=(16, 16), fps=Fraction(8), chunk=4))
    assert len(next(chunks)) == 4
    chunks.close()


def cut(path: Path, share: float) -> Path:
    """Keep the first part of a file."""
    data = path.read_bytes()
    short = path.with_name(f"cut{path.suffix}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("name", ["in.mp4", "in.webm", "in.gif"])
def test_a_cut_file_is_one_clear_error(scene, write, read, name, share):
    path = cut(write(name, scene(40, 32, 32)), share)
    with pytest.raises(VideoError, match=r"cut.*; give a complete video file") as found:
        read(path, (32, 32))
    assert "\n" not in str(found.value)


def test_a_video_that_ends_mid_frame_is_named_as_that(scene, write, read):
    path = write("in.mp4", scene(40, 32, 32))
    with av.open(str(path)) as container:
        last = max((packet for packet in container.demux() if packet.size), key=lambda p: p.pos)
    path.write_bytes(path.read_bytes()[: last.pos + last.size // 2])
    with pytest.raises(VideoError, match="ends or is damaged inside a frame"):
        read(path, (32, 32))


def write_sound(path: Path, *, cover: bool) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 16000, layout="mono")
        if cover:
            picture = container.add_stream("png", 1)
            picture.height = picture.width = 16
            picture.pix_fmt = "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic.value
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
        if cover:
            pixels = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))
            container.mux(picture.encode(pixels))
            container.mux(picture.encode())
    return path


@pytest.mark.parametrize("cover", [False, True])
def test_a_file_with_only_sound_is_named_as_that(tmp_path, read, cover):
    path = write_sound(tmp_path / "song.mp4", cover=cover)
    with pytest.raises(VideoError, match="holds no video, only audio"):
        read(path, (16, 16))


def test_a_title_that_is_no_utf8_is_no_obstacle(tmp_path, scene, read):
    frames = scene(4, 16, 16)
    path = encode(tmp_path / "titled.mp4", frames, title="Abendrot")
    data = path.read_bytes()
    assert data.count(b"Abendrot") == 1
    path.write_bytes(data.replace(b"Abendrot", b"Abendr\xf6t"))
    assert read(path, (16, 16)).shape == frames.shape


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.mp4", "there is no such file"),
        ("empty", "it is a directory without pictures"),
        ("notes.mp4", "it is no video, damaged or incomplete"),
        ("none.y4m", "not one frame of it can be decoded"),
        ("http://localhost/x.mp4", "there is no such file"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, monkeypatch, read, name, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.mp4").write_text("not a video at all\n" * 50)
    Path("none.y4m").write_bytes(b"YUV4MPEG2 W16 H16 F8:1 Ip A1:1 C444\n")
    with pytest.raises(VideoError, match=message):
        read(Path(name))


@pytest.fixture
def pictures(write):
    """A folder of three grey pictures whose names sort otherwise as text."""
    folder = write(
        "frames", np.array([10, 20, 200], np.uint8).repeat(8 * 12 * 3).reshape(3, 8, 12, 3)
    )
    for name, number in (("000000", 1), ("000001", 2), ("000002", 10)):
        (folder / f"{name}.png").rename(folder / f"frame{number}.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_a_folder_of_pictures_is_one_frame_each_in_the_order_of_their_numbers(read, pictures):
    frames = read(pictures, fps=3)
    assert frames.shape == (3, 8, 8, 3)
    assert frames[:, 0, 0, 0].tolist() == [10, 20, 200]


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "10.png"],
        ["frame_2.jpg", "frame_10.png", "frame_11.jpg"],
        ["clip1-9.png", "clip1-10.png", "clip2-1.png"],
        ["01.png", "1.png", "2.png", "²1.png"],
    ],
)
def test_pictures_are_sorted_by_their_numbers(tmp_path, names):
    for name in reversed(names):
        (tmp_path / name).touch()
    assert [file.name for file in picture_files(tmp_path)] == names


def test_a_damaged_picture_in_a_folder_is_named(read, pictures):
    (pictures / "frame3.png").write_bytes(b"not a picture")
    with pytest.raises(VideoError, match=r"frame3\.png: its pictures are damaged"):
        read(pictures)


def test_our_own_arrays_are_read_at_the_rate_they_name(write, read):
    frames = np.arange(4, dtype=np.uint8).repeat(8 * 8 * 3).reshape(4, 8, 8, 3)
    back = read(write("a.npz", frames, fps=4))
    assert back[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def broken_arrays():
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    return [
        {"frames": frames},
        {"fps": 8.0},
        {"frames": frames.astype(np.float32), "fps": 8.0},
        {"frames": frames[0], "fps": 8.0},
        {"frames": frames[:0], "fps": 8.0},
        {"frames": frames, "fps": 0.0},
        {"frames": frames, "fps": np.nan},
        {"frames": frames, "fps": "fast"},
        {"frames": frames, "fps": np.inf},
        {"frames": frames, "fps": [8.0, 8.0]},
        {"frames": np.asfortranarray(frames), "fps": 8.0},
    ]


@pytest.mark.parametrize("arrays", broken_arrays(), ids="-".join)
def test_arrays_that_are_no_video_are_one_line(read, tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(VideoError, match=r"^cannot read .*a\.npz: ") as caught:
        read(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 30, 400])
def test_a_cut_archive_is_one_line(read, tmp_path, keep):
    np.savez(tmp_path / "a.npz", frames=np.zeros((2, 8, 8, 3), np.uint8), fps=8.0)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:keep])
    with pytest.raises(VideoError, match=r"a\.npz: it is damaged or not of this program"):
        read(tmp_path / "a.npz")
