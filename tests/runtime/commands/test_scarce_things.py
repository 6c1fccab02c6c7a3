"""Where a machine has too little of something, a video is whole or absent and one line says why."""

import os
import subprocess
import sys
import time

import pytest
from toy_files import GENERATE, content, names

pytestmark = pytest.mark.slow


@pytest.fixture
def generated(toy, tmp_path):
    """Run `generate` behind a piece of shell; returns its exit code and its line."""

    def generated(before, *flags, out="sky.npz", cwd=tmp_path):
        run = [sys.executable, "-c", GENERATE, "generate", "--bundle", str(toy), "--backend", "cpu"]
        words = ["sh", "-c", f'{before}; exec "$@"', "sh", *run, "-o", out, "-q", *flags]
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, 1), done.stderr
        assert done.stderr.count("\n") == done.returncode, done.stderr
        return done.returncode, done.stderr

    return generated


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system in memory, with options; removed in the end."""
    place = tmp_path / "disk"
    place.mkdir()

    def mounted(options):
        words = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        if subprocess.run(words, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
        return place

    yield mounted
    subprocess.run(["umount", "-l", str(place)], capture_output=True)


@pytest.mark.parametrize("out", ["sky.npz", "sky.gif", "frames"])
@pytest.mark.parametrize("size", ["48k", "200k"])
def test_on_a_full_disk_there_is_no_half_file(generated, small_disk, out, size):
    place = small_disk(f"size={size}")
    code, said = generated("true", "--frames", "800", out=out, cwd=place)
    assert (code, "the disk is full" in said) == (1, True)
    assert [name for name in names(place) if name != f".{out}.work"] == []


def test_a_read_only_disk_is_refused_at_once(generated, small_disk):
    place = small_disk("size=1m,ro")
    code, said = generated("true", cwd=place)
    assert code == 1
    assert "it lies on a read-only file system; choose another place" in said


@pytest.mark.parametrize("most", [8, 16, 24, 32, 64])
def test_with_few_open_files_there_is_a_video_or_one_line(generated, tmp_path, most):
    code, _ = generated(f"ulimit -n {most}", "--frames", "12")
    assert names(tmp_path) == ([] if code else ["sky.npz", "sky.npz.json"])


@pytest.mark.parametrize("kib", [300_000, 400_000, 700_000])
def test_with_little_memory_there_is_a_video_or_one_line(generated, tmp_path, kib):
    code, said = generated(f"ulimit -v {kib}", "--frames", "12")
    visible = [name for name in names(tmp_path) if not name.startswith(".")]
    assert visible == ([] if code else ["sky.npz", "sky.npz.json"])
    assert code == 0 or "memory" in said or "thread" in said


def test_a_directory_that_vanishes_meanwhile_ends_a_run_in_one_line(start, toy, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    flags = ("-o", "place/sky.npz", "--bundle", toy, "--frames", "40000", "--backend", "cpu", "-q")
    process = start("generate", *flags)
    while not any(place.glob(".sky.npz.work/video-*/*.npy")):
        time.sleep(0.01)
    place.rename(tmp_path / "away")  # at once, whatever is being written there
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said.count("\n")) == (1, 1), said
    assert "place" in said
    assert not (place / "sky.npz").exists()


def test_a_clock_that_was_set_back_hinders_no_resume(stopped, generate, tmp_path):
    generate("whole.npz", "--backend", "cpu")
    stopped("sky.npz", "--backend", "cpu")
    later = time.time() + 400 * 24 * 3600
    for path in (tmp_path / ".sky.npz.work").rglob("*"):
        os.utime(path, (later, later))
    generate("sky.npz", "--resume", "--backend", "cpu")
    made = content(tmp_path)
    assert made["sky.npz"] == made["whole.npz"]
