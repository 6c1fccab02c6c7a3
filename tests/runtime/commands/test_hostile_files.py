"""Files that others put in a run's way: nothing of theirs is lost, nothing is waited for."""

import hashlib
import os

import pytest
from toy_files import array_file, content, edited

from lvdm_rt.commands import outputs

NO_HEADERS = ["((((", "{'descr': ',,', 'fortran_order': False, 'shape': (1,), }"]
HUGE = str({"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)})
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


@pytest.fixture
def clips(generate, tmp_path, monkeypatch):
    """Stop a run before its video is written; returns its finished clips."""
    with monkeypatch.context() as patch:
        patch.setattr(outputs.VideoWriter, "close", lambda self: os.kill(os.getpid(), 2))
        generate("sky.npz", "--backend", "cpu", code=130)
    clips = sorted((tmp_path / ".sky.npz.work").glob("video-*/*.npy"))
    assert clips
    return clips


@pytest.mark.parametrize("how", ["--resume", "--restart"])
def test_links_among_the_clips_lead_nowhere(generate, clips, tmp_path, how):
    elsewhere = tmp_path / "elsewhere"
    clips[0].parent.rename(elsewhere)
    clips[0].parent.symlink_to(elsewhere)
    (elsewhere / clips[0].name).write_text("precious")
    (elsewhere / clips[1].name).unlink()
    kept = content(elsewhere)
    assert "video-000000" in generate("sky.npz", how, "--backend", "cpu", code=1)
    assert content(elsewhere) == kept


@pytest.mark.parametrize("header", [*NO_HEADERS, HUGE])
def test_a_clip_with_a_right_checksum_and_no_array_is_made_again(generate, clips, caplog, header):
    data = array_file(header)
    clips[0].write_bytes(data + hashlib.sha256(data).digest())
    generate("sky.npz", "--resume", "--backend", "cpu")
    assert "and is made again" in caplog.text


def test_pipes_are_not_waited_for(generate, clips, tmp_path):
    clips[0].unlink()
    os.mkfifo(clips[0])
    os.mkfifo(tmp_path / "sky.npz.json")
    flags = ("sky.npz", "--resume", "--backend", "cpu")
    assert "holds no settings of a video" in generate(*flags, code=1)
    (tmp_path / "sky.npz.json").unlink()
    generate(*flags)


def test_another_backend_does_not_go_on_with_a_run(generate, clips):
    pytest.importorskip("openvino")
    told = generate("sky.npz", "--backend", "openvino", "--resume", code=1)
    assert "with backend 'cpu', now it is 'openvino " in told


def test_a_pipe_among_pictures_or_beside_the_output_is_not_waited_for(generate, tmp_path):
    generate("sky")
    (tmp_path / "sky" / "000003.png").unlink()
    os.mkfifo(tmp_path / "sky" / "000003.png")
    assert "000003.png, which is no frame" in generate("sky", "--resume", code=1)
    os.mkfifo(tmp_path / ".b.npz.abcdefgh.partial")
    generate("b.npz")
    assert (tmp_path / ".b.npz.abcdefgh.partial").is_fifo()


def test_what_a_manifest_is_called_reaches_no_terminal_raw(command, make_bundle):
    bundle = make_bundle()
    with edited(bundle / "manifest.json") as manifest:
        manifest["name"] = "sky\u202etxt\u2028"
    for flags in ((), ("--json",)):
        code, out, _ = command("info", bundle, *flags)
        assert code == 0
        assert not {"\u202e", "\u2028"} & set(out)


def test_a_pipe_among_pictures_is_not_waited_for(generate, tmp_path):
    (tmp_path / "frames").mkdir()
    os.mkfifo(tmp_path / "frames" / "a.png")
    told = generate("a.npz", "--condition", "frames", code=1)
    assert "a.png: it is no ordinary file" in told


@pytest.mark.parametrize("place", ["pipe", "/dev/zero"])
def test_settings_are_not_read_from_a_pipe_or_a_device(generate, tmp_path, place):
    os.mkfifo(tmp_path / "pipe")
    assert "it is no ordinary file" in generate("a.npz", "--from", place, code=1)
