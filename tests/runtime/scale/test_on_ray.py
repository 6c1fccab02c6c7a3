"""Real clusters of several nodes in this machine: the same bytes, whoever makes them."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_files import GENERATE, with_tests_on_path

pytest.importorskip("ray")

ROOT = Path(__file__).parents[3]
SKY = ("--frames", "120", "--seed", "3", "--backend", "cpu", "--threads", "1", "--exact", "-q")


def measured(*words):
    """Return what tests/scaling.py prints, which fails where bytes differ."""
    command = [sys.executable, "tests/scaling.py", *map(str, words)]
    done = subprocess.run(
        command, cwd=ROOT, env=with_tests_on_path(), capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout.count("scaling:")) == (0, 0), done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_one_two_and_four_nodes_make_the_video_of_one_process():
    told = measured("workers", "--frames", 200, "--unit", 0.0005)
    assert re.findall(r"^\| (\d) \|.*equal \|$", told, re.MULTILINE) == ["1", "2", "4"]


@pytest.mark.exhaustive
def test_a_video_is_the_same_whenever_a_node_is_lost():
    told = measured("losses", "--frames", 400, "--unit", 0.0005, "--moments", 3)
    assert told.count("| equal |") == 4


def generate(folder, *words):
    command = [sys.executable, "-c", GENERATE, "generate", *words, *SKY]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def ended(run):
    """Return the exit code of a command, and what it said."""
    _, said = run.communicate(timeout=200)
    return run.returncode, said


@pytest.mark.slow
def test_an_interrupted_command_leaves_its_clips_to_one_that_has_no_cluster(tmp_path):
    whole = generate(tmp_path, "-o", "whole.npz")
    spread = generate(tmp_path, "-o", "sky.npz", "--ray", "--workers", "2")
    assert ended(whole) == (0, "")
    work = tmp_path / ".sky.npz.work"
    ends = time.monotonic() + 120
    while not list(work.glob("video-*/refine-*.npy")):
        assert spread.poll() is None, ended(spread)
        assert time.monotonic() < ends
        time.sleep(0.02)
    spread.send_signal(signal.SIGINT)
    code, said = ended(spread)
    line = r"lvdm-rt: interrupted; finished clips are kept; .* --resume\n"
    assert (code, re.sub(line, "", said)) == (130, "")
    assert ended(generate(tmp_path, "-o", "sky.npz", "--resume")) == (0, "")
    assert (tmp_path / "sky.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not work.exists()
