"""Files that others put in a run's way: nothing of theirs is lost, nothing is waited for."""

import hashlib
import io
import json
import os
import zipfile

import numpy as np
import pytest

from lvdm_engines import lock
from lvdm_rt.commands import outputs

SMALL = ("--frames", "12", "--seed", "7", "-q", "--backend", "cpu")
NO_HEADERS = ["((((", "{'descr': ',,', 'fortran_order': False, 'shape': (1,), }"]
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


def npy(header):
    """Return an array's file with a header of its own making."""
    data = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data


@pytest.fixture
def interrupted(command, toy, tmp_path, monkeypatch):
    """Stop a run before its video is written; returns its flags and its finished clips."""
    flags = ("generate", "-o", "sky.npz", "--bundle", toy, *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(outputs.VideoWriter, "close", lambda self: os.kill(os.getpid(), 2))
        assert command(*flags)[0] == 130
    clips = sorted((tmp_path / ".sky.npz.work").glob("video-*/*.npy"))
    assert clips
    return flags, clips


@pytest.mark.parametrize("name", ["sky.npz", "sky.npz.json"])
def test_a_file_that_appears_while_a_run_goes_on_is_kept(command, toy, tmp_path, monkeypatch, name):
    begun = outputs.Outputs._begun

    def someone_else(self, index):
        (tmp_path / name).write_bytes(b"precious")
        return begun(self, index)

    monkeypatch.setattr(outputs.Outputs, "_begun", someone_else)
    code, _, err = command("generate", "-o", "sky.npz", "--bundle", toy, *SMALL)
    assert (code, f" {name} was taken meanwhile; move it away" in err) == (1, True), err
    assert (tmp_path / name).read_bytes() == b"precious"


def test_what_another_run_is_writing_is_no_leftover(command, toy, tmp_path):
    part = tmp_path / ".sky.npz.01234567.partial"
    part.touch()
    holder = lock.acquire(part)
    assert command("generate", "-o", "sky.npz", "--bundle", toy, *SMALL)[0] == 0
    lock.release(holder)
    assert part.exists()


@pytest.mark.parametrize("how", ["--resume", "--restart"])
def test_links_among_the_clips_lead_nowhere(command, interrupted, tmp_path, how):
    flags, clips = interrupted
    elsewhere = tmp_path / "elsewhere"
    clips[0].parent.rename(elsewhere)
    clips[0].parent.symlink_to(elsewhere)
    (elsewhere / clips[0].name).write_text("precious")
    (elsewhere / clips[1].name).unlink()
    kept = sorted(elsewhere.iterdir())
    code, _, err = command(*flags, how)
    assert code == 1
    assert "video-000000" in err
    assert sorted(elsewhere.iterdir()) == kept
    assert (elsewhere / clips[0].name).read_text() == "precious"


@pytest.mark.parametrize("header", [*NO_HEADERS, str({"descr": "<f4", "fortran_order": False,
                                                      "shape": (10**9, 10**6)})])  # fmt: skip
def test_a_clip_with_a_right_checksum_and_no_array_is_made_again(
    command, interrupted, caplog, header
):
    flags, clips = interrupted
    clips[0].write_bytes(npy(header) + hashlib.sha256(npy(header)).digest())
    assert command(*flags, "--resume")[0] == 0
    assert "and is made again" in caplog.text


def test_pipes_are_not_waited_for(command, interrupted, tmp_path):
    flags, clips = interrupted
    clips[0].unlink()
    os.mkfifo(clips[0])
    os.mkfifo(tmp_path / "sky.npz.json")
    code, _, err = command(*flags, "--resume")
    assert (code, "holds no settings of a video" in err) == (1, True), err
    (tmp_path / "sky.npz.json").unlink()
    assert command(*flags, "--resume")[0] == 0


def test_another_backend_does_not_go_on_with_a_run(command, interrupted):
    pytest.importorskip("openvino")
    flags, _ = interrupted
    code, _, err = command(*flags[:-1], "openvino", "--resume")
    assert (code, "with backend 'cpu', now it is 'openvino f32'" in err) == (1, True), err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_among_pictures_or_beside_the_output_is_not_waited_for(command, toy, tmp_path):
    flags = ("generate", "-o", "sky", "--bundle", toy, *SMALL)
    assert command(*flags)[0] == 0
    (tmp_path / "sky" / "000003.png").unlink()
    os.mkfifo(tmp_path / "sky" / "000003.png")
    assert "000003.png, which is no frame" in command(*flags, "--resume")[2]
    os.mkfifo(tmp_path / ".b.npz.abcdefgh.partial")
    assert command("generate", "-o", "b.npz", "--bundle", toy, *SMALL)[0] == 0
    assert (tmp_path / ".b.npz.abcdefgh.partial").is_fifo()


@pytest.mark.parametrize("header", NO_HEADERS)
def test_an_archive_of_no_arrays_is_one_line(command, toy, tmp_path, header):
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as archive:
        fps = io.BytesIO()
        np.save(fps, np.array(8.0))
        archive.writestr("fps.npy", fps.getvalue())
        archive.writestr("frames.npy", npy(header))
    code, _, err = command("generate", "--condition", "in.npz", "-o", "a.npz", "--bundle", toy,
                           *SMALL)  # fmt: skip
    assert (code, len(err.splitlines())) == (1, 1), err
    assert "cannot read in.npz: it is damaged" in err


def test_a_damaged_lzma_archive_is_one_line(command, toy, tmp_path):
    with zipfile.ZipFile(tmp_path / "in.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("fps.npy", b"x" * 500)
        archive.writestr("frames.npy", bytes(5000))
    data = bytearray((tmp_path / "in.npz").read_bytes())
    data[60:75] = b"\xff" * 15
    (tmp_path / "in.npz").write_bytes(data)
    code, _, err = command("generate", "--condition", "in.npz", "-o", "a.npz", "--bundle", toy,
                           *SMALL)  # fmt: skip
    assert (code, len(err.splitlines())) == (1, 1), err


def test_what_a_manifest_is_called_reaches_no_terminal_raw(command, make_bundle):
    bundle = make_bundle()
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["name"] = "sky\u202etxt\u2028"
    (bundle / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False))
    for flags in ((), ("--json",)):
        code, out, _ = command("info", bundle, *flags)
        assert code == 0
        assert not {"\u202e", "\u2028"} & set(out)


def test_a_pipe_among_pictures_is_not_waited_for(command, toy, tmp_path):
    (tmp_path / "frames").mkdir()
    os.mkfifo(tmp_path / "frames" / "a.png")
    code, _, err = command(
        "generate", "--condition", "frames", "-o", "a.npz", "--bundle", toy, *SMALL
    )
    assert (code, "a.png: it is no ordinary file" in err) == (1, True), err


def test_settings_are_not_read_from_a_pipe_or_a_device(command, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in ("pipe", "/dev/zero"):
        code, _, err = command("generate", "--from", place, "-o", "a.npz", *SMALL)
        assert (code, "it is no ordinary file" in err) == (1, True), err
