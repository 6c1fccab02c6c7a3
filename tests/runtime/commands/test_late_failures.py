"""What would fail after minutes of sampling is refused before it."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from toy_files import GENERATE, compile_library, content, names

import lvdm_rt
from lvdm_engines import atomic
from lvdm_rt.commands import outputs


@pytest.fixture
def refused(generate, monkeypatch):
    """Run `generate` where sampling would be a fault; returns what it said."""

    def refused(*flags):
        with monkeypatch.context() as patch:
            patch.setattr(lvdm_rt.Pipeline, "stream_videos", None)
            err = generate(*flags, code=1)
        assert err.count("\n") == 1
        return err

    return refused


@pytest.mark.parametrize("out", ["link", "link/", "link.mp4"])
@pytest.mark.parametrize("target", ["real", "sky.mp4", "nothing"])
def test_a_link_as_output_is_refused(refused, tmp_path, out, target):
    (tmp_path / "real").mkdir()
    (tmp_path / "sky.mp4").write_bytes(b"mine")
    (tmp_path / out).symlink_to(target)
    assert "link" in refused(out, "--force")
    assert (tmp_path / "sky.mp4").read_bytes() == b"mine"
    assert names(tmp_path / "real") == []


@pytest.mark.parametrize("out", ["sky.mp4", "sky/"])
def test_a_name_of_the_settings_that_is_taken_by_a_directory_is_refused(refused, tmp_path, out):
    (tmp_path / f"{out.rstrip('/')}.json").mkdir()
    assert "json" in refused(out)
    assert "json" in refused(out, "--force")


def test_a_gif_of_more_frames_than_it_can_time_is_refused(refused):
    told = refused("sky.gif", "--fps", "101")
    assert "got 101 frames per second for sky.gif" in told


def test_a_place_that_takes_no_file_is_refused(refused, monkeypatch, tmp_path):
    real_open = Path.open

    def unwritable(path, mode="r", **more):
        if "x" in mode:
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, mode, **more)

    monkeypatch.setattr(Path, "open", unwritable)
    assert "Permission denied" in refused("sky.mp4")
    assert names(tmp_path) == []


def test_more_videos_at_once_than_open_files_are_refused(refused, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (128, 128))
    told = refused("sky.mp4", "--videos", "100", "--batch-size", "80")
    assert "80 videos are written at once, but this process may open 128 files" in told
    assert outputs.check_open_files(64) is None


@pytest.mark.parametrize("name", ["sky.mp4", "sky.npz", "sky"])
def test_hidden_names_are_never_written_through(generate, tmp_path, monkeypatch, name):
    monkeypatch.setattr(atomic.uuid, "uuid4", lambda: SimpleNamespace(hex="0" * 32))
    (tmp_path / "mine").write_bytes(b"mine")
    monkeypatch.setattr(atomic, "remove_leftovers", lambda *_, **__: None)
    monkeypatch.setattr("lvdm_rt.video.writer.remove_leftovers", lambda *_, **__: None)
    (tmp_path / f".{name}.00000000.partial").symlink_to("mine")
    assert "File exists" in generate(name, code=1)
    assert (tmp_path / "mine").read_bytes() == b"mine"


NO_THREAD = "lvdm-rt: no thread can be started (can't start new thread); lower --threads"


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


@pytest.fixture(scope="module")
def few_threads(tmp_path_factory):
    """Build a library that refuses a process more threads than the variable MOST says."""
    return compile_library(tmp_path_factory.mktemp("threads"), FEW_THREADS, "few.so", "-ldl")


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6])
def test_a_system_with_few_threads_left_gives_one_line_and_no_hang(
    start, toy, monkeypatch, few_threads, most
):
    monkeypatch.setenv("LD_PRELOAD", str(few_threads))
    monkeypatch.setenv("MOST", str(most))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # it has its own words
    run = start("generate", "-o", "sky.npz", "--bundle", toy, "-q", "--threads", "4")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 1, err
    assert err.startswith(NO_THREAD)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"\0"])
def test_a_sidecar_that_is_no_json_is_one_line(generate, command, tmp_path, content):
    (tmp_path / "sky.npz.json").write_bytes(content)
    code, _, err = command("generate", "-o", "b.npz", "--from", "sky.npz.json")
    assert (code, "sky.npz.json: is not JSON" in err, len(err) < 400) == (1, True, True)
    assert "holds no settings of a video" in generate("sky.npz", "--force", "-q", code=1)


@pytest.mark.slow
@pytest.mark.parametrize("progress", ["bar", "lines", "json"])
def test_a_terminal_that_vanishes_does_not_end_a_run(start, toy, tmp_path, frames_of, progress):
    ours, theirs = os.openpty()
    flags = ("-o", "sky.npz", "--bundle", toy, "--frames", "400", "--progress", progress)
    process = start("generate", *flags, stderr=theirs)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert len(frames_of("sky.npz")) == 400
    assert names(tmp_path) == ["sky.npz", "sky.npz.json"]


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
@pytest.mark.parametrize("style", ["auto", "bar", "lines", "json"])
def test_a_run_that_can_say_nothing_makes_its_video(toy, tmp_path, closed, style):
    flags = ["--bundle", toy, "--frames", "12", "--backend", "cpu", "--progress", style]
    argv = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", GENERATE, "generate"]
    assert (
        subprocess.run([*argv, "-o", "sky.npz", *flags], cwd=tmp_path, timeout=60).returncode == 0
    )
    assert names(tmp_path) == ["sky.npz", "sky.npz.json"]


def test_a_closed_stdout_adds_nothing_to_an_error(tmp_path):
    argv = ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-c", GENERATE, "generate"]
    done = subprocess.run(
        [*argv, "-o", "-", "--from", "none.json"], cwd=tmp_path, stderr=subprocess.PIPE, timeout=60
    )
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done.stderr


def test_old_pictures_stay_until_the_new_ones_are_whole(generate, tmp_path, monkeypatch):
    generate("sky", "--frames", "3")
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        full = Mock(side_effect=OSError(28, "No space left on device"))
        patch.setattr("lvdm_rt.video.publishing.write_sidecar", full)
        told = generate("sky", "--frames", "3", "--seed", "9", "--force", code=1)
    assert "the disk is full" in told
    assert content(tmp_path).items() >= before.items()
    generate("sky", "--frames", "3", "--seed", "9", "--force", "--restart")
    after = content(tmp_path)
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in before)


@pytest.mark.parametrize("out", ["sky", "sky.mp4"])
def test_a_mount_point_is_refused_before_the_work(refused, tmp_path, monkeypatch, out):
    (tmp_path / out).mkdir() if out == "sky" else (tmp_path / out).touch()
    (tmp_path / "disk").mkdir() if out == "sky" else (tmp_path / "disk").touch()
    mount = ["mount", "--bind", "disk", out]
    if subprocess.run(mount, cwd=tmp_path, capture_output=True).returncode:
        monkeypatch.setattr(atomic.os.path, "ismount", lambda path: Path(path).name == out)
    try:
        assert f"cannot write {out}: it is a mount point" in refused(out, "--force")
    finally:
        subprocess.run(["umount", out], cwd=tmp_path, capture_output=True)


def test_what_is_another_users_in_a_shared_directory_is_refused(refused, tmp_path, monkeypatch):
    (tmp_path / "sky.mp4").write_bytes(b"mine")
    tmp_path.chmod(0o1777)
    monkeypatch.setattr(atomic.os, "geteuid", lambda: os.getuid() + 1)
    assert "another user's, and cannot be replaced there" in refused("sky.mp4", "--force")
    assert (tmp_path / "sky.mp4").read_bytes() == b"mine"
