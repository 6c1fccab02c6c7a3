"""Pictures that would take too much memory are refused before they do."""

import io
import zipfile

import numpy as np
import pytest

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


def archive(path, shape, fps):
    """Write an archive whose headers say what its bytes do not hold."""
    with zipfile.ZipFile(path, "w") as out:
        for name, header in (("frames", ("|u1", shape)), ("fps", ("<f8", fps))):
            data = io.BytesIO()
            described = {"descr": header[0], "fortran_order": False, "shape": header[1]}
            np.lib.format.write_array_header_1_0(data, described)
            out.writestr(f"{name}.npy", data.getvalue() + bytes(4096 if fps else 8))
    return path


@pytest.mark.parametrize(
    ("shape", "fps"),
    [((1, 1 << 20, 1 << 20, 3), ()), ((1, 8, 8, 3), (1 << 40,)), ((1 << 40, 1, 1, 3), ())],
)
def test_an_archive_that_says_it_is_huge_is_refused_by_its_header(tmp_path, read, shape, fps):
    path = archive(tmp_path / "a.npz", shape, fps)
    with pytest.raises(VideoError, match=r"cannot read .*a\.npz"):
        read(path)


@pytest.mark.parametrize(
    "header", ["((((", "{'descr': ',,', 'fortran_order': False, 'shape': (1,), }"]
)
def test_an_archive_of_no_arrays_is_one_line(tmp_path, read, header):
    text = header.encode().ljust(117) + b"\n"
    path = archive(tmp_path / "a.npz", (1, 8, 8, 3), ())
    with zipfile.ZipFile(path) as source:
        fps = source.read("fps.npy")
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("fps.npy", fps)
        out.writestr("frames.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(VideoError, match=r"cannot read .*a\.npz: it is damaged"):
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
