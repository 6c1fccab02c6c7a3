"""Pictures that would take too much memory are refused before they do."""

import zipfile

import numpy as np
import pytest
from toy_files import array_file

from lvdm_engines.errors import VideoError
from lvdm_rt.video import MAX_PIXELS


@pytest.mark.parametrize("name", ["sky.mp4", "sky.webm", "sky.gif", "sky.npz", "sky/"])
def test_pictures_with_more_pixels_than_the_limit_are_refused(scene, write, read, name):
    path = write(name, scene(3, 16, 24))
    assert read(path, max_pixels=16 * 24).shape == (3, 8, 8, 3)
    with pytest.raises(
        VideoError, match=r"383.*smaller ones, or raise the limit with --max-pixels"
    ):
        read(path, max_pixels=16 * 24 - 1)


def test_pictures_far_over_the_limit_are_not_even_decoded(scene, write, read):
    path = write("sky/", scene(1, 400, 600)) / "000000.png"
    with pytest.raises(VideoError, match=r"damaged or have more than 9 pixels.*--max-pixels"):
        read(path, max_pixels=9)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsky.mp4\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile sky.mp4\n"),
    ],
)
def test_a_list_of_other_files_is_not_followed(scene, write, read, tmp_path, name, text):
    write("sky.mp4", scene(3, 16, 24))
    (tmp_path / name).write_text(text)
    with pytest.raises(VideoError, match=r"cannot read .*list\..*: it is a playlist"):
        read(tmp_path / name)


def described(kind, shape):
    return str({"descr": kind, "fortran_order": False, "shape": shape})


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (described("|u1", (1, 1 << 20, 1 << 20, 3)), ()),
        (described("|u1", (1 << 40, 1, 1, 3)), ()),
        (described("|u1", (1, 8, 8, 3)), (1 << 40,)),
        (described(",,", (1,)), ()),
        ("((((", ()),
    ],
)
def test_an_archive_that_is_huge_or_holds_no_arrays_is_refused_by_its_headers(
    tmp_path, read, frames, fps
):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("frames.npy", array_file(frames, bytes(4096)))
        out.writestr("fps.npy", array_file(described("<f8", fps), np.float64(8).tobytes()))
    with pytest.raises(VideoError, match=r"cannot read .*a\.npz: "):
        read(path)


def test_a_damaged_lzma_archive_is_one_line(tmp_path, read):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as out:
        out.writestr("fps.npy", b"x" * 500)
        out.writestr("frames.npy", bytes(5000))
    data = bytearray(path.read_bytes())
    data[60:75] = b"\xff" * 15
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"cannot read .*a\.npz: it is damaged"):
        read(path)


def test_the_limit_is_a_flag_of_the_command_line():
    from lvdm_rt.cli import lvdm_rt

    flag = next(p for p in lvdm_rt.commands["generate"].params if p.name == "max_pixels")
    assert flag.default == MAX_PIXELS
