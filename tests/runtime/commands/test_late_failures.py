"""What would fail after minutes of sampling is refused before it."""

import os
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import lvdm_rt
from lvdm_engines import atomic
from lvdm_rt.commands import outputs

SMALL = ("--frames", "20", "--seed", "7")


@pytest.fixture
def refused(command, toy, monkeypatch):
    """Run `generate` where sampling would be a fault; returns what it said."""

    def refused(*flags):
        with monkeypatch.context() as patch:
            patch.setattr(lvdm_rt.Pipeline, "stream_videos", None)
            code, _, err = command("generate", "--bundle", toy, *SMALL, *flags)
        assert (code, err.count("\n")) == (1, 1), err
        return err

    return refused


@pytest.mark.parametrize("out", ["link", "link/", "link.mp4"])
@pytest.mark.parametrize("target", ["real", "sky.mp4", "nothing"])
def test_a_link_as_output_is_refused(refused, tmp_path, out, target):
    (tmp_path / "real").mkdir()
    (tmp_path / "sky.mp4").write_bytes(b"mine")
    (tmp_path / out).symlink_to(target)
    assert "link" in refused("-o", out, "--force")
    assert (tmp_path / "sky.mp4").read_bytes() == b"mine"
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize("out", ["sky.mp4", "sky/"])
def test_a_name_of_the_settings_that_is_taken_by_a_directory_is_refused(refused, tmp_path, out):
    (tmp_path / f"{out.rstrip('/')}.json").mkdir()
    assert "json" in refused("-o", out)
    assert "json" in refused("-o", out, "--force")


def test_a_gif_of_more_frames_than_it_can_time_is_refused(refused):
    told = refused("-o", "sky.gif", "--fps", "101")
    assert "got 101 frames per second for sky.gif" in told


FEW_THREADS = """
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *data)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        dlsym(RTLD_NEXT, "pthread_create");
    DIR *tasks = opendir("/proc/self/task");
    int running = -2; /* the directories . and .. */
    while (readdir(tasks))
        running++;
    closedir(tasks);
    return running < atoi(getenv("MOST")) ? real(thread, how, run, data) : EAGAIN;
}
"""


def test_a_place_that_takes_no_file_is_refused(refused, monkeypatch, tmp_path):
    assert "File name too long" in refused("-o", "a" * 250 + ".mp4")

    real_open = Path.open

    def unwritable(path, mode="r", **more):
        if "x" in mode:
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, mode, **more)

    monkeypatch.setattr(Path, "open", unwritable)
    assert "Permission denied" in refused("-o", "sky.mp4")
    assert list(tmp_path.iterdir()) == []


def test_more_videos_at_once_than_open_files_are_refused(refused, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (128, 128))
    told = refused("-o", "sky.mp4", "--videos", "100", "--batch-size", "80")
    assert "80 videos are written at once, but this process may open 128 files" in told
    assert outputs.check_open_files(64) is None


@pytest.mark.parametrize("name", ["sky.mp4", "sky.npz", "sky"])
def test_hidden_names_are_never_written_through(command, toy, tmp_path, monkeypatch, name):
    monkeypatch.setattr(atomic.uuid, "uuid4", lambda: SimpleNamespace(hex="0" * 32))
    (tmp_path / "mine").write_bytes(b"mine")
    monkeypatch.setattr(atomic, "remove_leftovers", lambda *_, **__: None)
    monkeypatch.setattr("lvdm_rt.video.writer.remove_leftovers", lambda *_, **__: None)
    (tmp_path / f".{name}.00000000.partial").symlink_to("mine")
    code, _, err = command("generate", "-o", name, "--bundle", toy, *SMALL)
    assert (code, "File exists" in err) == (1, True), err
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_limit_of_threads_is_one_line(command, toy, monkeypatch, tmp_path):
    def no_more(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    code, _, err = command("generate", "-o", "sky.npz", "--bundle", toy, *SMALL, "-q")
    assert code == 1
    assert err.startswith(
        "lvdm-rt: no thread can be started (can't start new thread); lower --threads"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def few_threads(tmp_path_factory):
    """Build a library that refuses a process more threads than the variable MOST says."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("threads")
    (folder / "few.c").write_text(FEW_THREADS)
    built = ["gcc", "-shared", "-fPIC", "-o", "few.so", "few.c", "-ldl"]
    subprocess.run(built, cwd=folder, check=True)
    return str(folder / "few.so")


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6])
def test_a_system_with_few_threads_left_gives_one_line_and_no_hang(
    start, toy, monkeypatch, few_threads, most
):
    monkeypatch.setenv("LD_PRELOAD", few_threads)
    monkeypatch.setenv("MOST", str(most))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # it has its own words
    run = start("generate", "-o", "sky.npz", "--bundle", toy, *SMALL, "-q", "--threads", "4")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 1, err
    assert err.startswith("lvdm-rt: no thread can be started (can't start new thread); lower")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"\0"])
def test_a_sidecar_that_is_no_json_is_one_line(command, tmp_path, content):
    (tmp_path / "sky.npz.json").write_bytes(content)
    code, _, err = command("generate", "-o", "b.npz", "--from", "sky.npz.json")
    assert (code, "sky.npz.json: is not JSON" in err, len(err) < 400) == (1, True, True)
    code, _, err = command("generate", "-o", "sky.npz", "--force", "-q")
    assert (code, "holds no settings of a video" in err) == (1, True)


@pytest.mark.parametrize("progress", ["bar", "lines", "json"])
def test_a_terminal_that_vanishes_does_not_end_a_run(start, toy, tmp_path, progress):
    ours, theirs = os.openpty()
    flags = ("-o", "sky.npz", "--bundle", toy, "--frames", "400", "--progress", progress)
    process = start("generate", *flags, stderr=theirs)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    assert process.wait(timeout=60) == 0
    with np.load(tmp_path / "sky.npz") as archive:
        assert len(archive["frames"]) == 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sky.npz", "sky.npz.json"]


@pytest.mark.parametrize("style", ["auto", "lines", "json"])
def test_a_run_without_stderr_makes_its_video(toy, tmp_path, style):
    program = "from lvdm_rt.cli import main; main()"
    flags = ["-o", "sky.npz", "--bundle", toy, *SMALL, "--backend", "cpu", "--progress", style]
    argv = ["sh", "-c", '"$@" 2>&-', "sh", sys.executable, "-c", program, "generate", *flags]
    assert subprocess.run(argv, cwd=tmp_path, timeout=60).returncode == 0
    assert (tmp_path / "sky.npz").exists()


def test_old_pictures_stay_until_the_new_ones_are_whole(command, toy, tmp_path, monkeypatch):
    flags = ("generate", "-o", "sky", "--bundle", toy, "--frames", "3", "-q")
    assert command(*flags)[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lvdm_rt.video.writer.write_sidecar", full)
        code, _, err = command(*flags, "--seed", "9", "--force")
    assert (code, "the disk is full" in err) == (1, True)
    assert all(path.read_bytes() == data for path, data in before.items())
    assert command(*flags, "--seed", "9", "--force", "--restart")[0] == 0
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in before)
