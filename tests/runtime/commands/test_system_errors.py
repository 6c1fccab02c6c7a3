"""An error of the system is told with advice that can help against that one."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toy_files import GENERATE, names

from lvdm_engines import atomic
from lvdm_engines.bundle import load_bundle
from lvdm_engines.errors import BundleError, cause

ADVICE = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "your quota is used up; remove files of yours",
    errno.EACCES: "Permission denied; change the permissions",
    errno.EROFS: "it lies on a read-only file system; choose another place",
    errno.EIO: "the disk reports a fault (Input/output error); look into the system's log",
    errno.ENOMEM: "too little memory; end other programs",
    errno.EMFILE: "Too many open files; raise the limit (ulimit -n)",
    errno.ESTALE: "the disk or its server is gone",
    errno.ENOTDIR: "Not a directory; choose another",
}


@pytest.mark.parametrize("number", ADVICE)
def test_work_files_that_cannot_be_written_are_told_with_the_right_advice(
    generate, tmp_path, monkeypatch, number
):
    def fails(path):
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "sync", fails)
        told = generate("sky.npz", code=1)
    assert f"cannot be written: {ADVICE[number]}" in told
    assert ("free some space" in told) == (number == errno.ENOSPC)
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", ADVICE)
def test_a_video_that_cannot_be_written_is_told_with_the_right_advice(
    generate, tmp_path, monkeypatch, number
):
    def fails(_path):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("lvdm_rt.video.publishing.sync", fails)
        told = generate("sky.npz", code=1)
    assert f"cannot write sky.npz: {ADVICE[number].partition('; choose another')[0]}" in told
    assert names(tmp_path) == [".sky.npz.work"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_clip_that_cannot_be_read_is_not_called_damaged(
    stopped, generate, monkeypatch, caplog, number
):
    stopped("sky.npz", "--backend", "cpu")
    real = atomic.open_file

    def unreadable(path):
        if Path(path).suffix == ".npy":
            raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(atomic, "open_file", unreadable)
    generate("sky.npz", "--resume", "--backend", "cpu")
    assert f"cannot be read ({os.strerror(number)}) and is made again" in caplog.text
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_inputs_that_cannot_be_read_are_not_called_damaged(
    generate, make_bundle, tmp_path, monkeypatch, number
):
    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    np.savez(tmp_path / "in.npz", frames=np.zeros((8, 16, 16, 3), np.uint8), fps=8.0)
    with monkeypatch.context() as patch:
        patch.setattr("lvdm_rt.video.arrays.zipfile.ZipFile", fails)
        told = generate("sky.npz", "--condition", tmp_path / "in.npz", code=1)
    assert f"in.npz: {ADVICE[number]}" in told
    assert "damaged" not in told
    bundle = make_bundle()
    monkeypatch.setattr("lvdm_engines.bundle.read_file", fails)
    with pytest.raises(BundleError, match=re.escape(ADVICE[number])):
        load_bundle(bundle)


def test_every_error_has_one_line_whatever_it_lacks():
    assert cause(OSError(errno.EIO, "x")).startswith("the disk reports a fault")
    assert cause(ValueError("odd")) == "odd; choose another name or place"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["fsync", "rename,renameat,renameat2", "mkdir,mkdirat"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_system_call_that_fails_leaves_no_half_file(toy, tmp_path, call, error):
    command = [sys.executable, "-c", GENERATE, "generate", "--bundle", str(toy), "--backend", "cpu"]
    command += ["-o", "sky.npz", "--frames", "24", "-q"]
    for when in ("1", "3+"):
        inject = f"inject={call}:error={error}:when={when}"
        traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
        done = subprocess.run(
            [*traced, *command], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode in (0, 1), done.stderr
        assert done.stderr.count("\n") == done.returncode, done.stderr
        assert (tmp_path / "sky.npz").exists() == (done.returncode == 0)
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
