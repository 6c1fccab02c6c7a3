"""A batch as a process of its own that is interrupted and killed: nothing lost, nothing twice."""

import signal
import time

import pytest
from toy_files import content, names

pytest.importorskip("onnx")

pytestmark = pytest.mark.slow
FLAGS = ("--frames", "120", "--sampler", "ddpm", "--exact", "--format", "npz", "--batch-size", "2")


@pytest.fixture
def begin(start, toy):
    def begin(out):
        words = ("batch", "--seeds", "0:6", "-o", out, "--bundle", toy, "--backend", "cpu", "-q")
        return start(*words, *FLAGS)

    return begin


def ended(process, code):
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, ""), err
    return err


def videos(folder):
    return {name: data for name, data in content(folder).items() if name != "batch.jsonl"}


def test_a_batch_that_is_interrupted_and_killed_goes_on_to_the_same_files(begin, tmp_path):
    ended(begin("whole"), 0)
    for moment in (1, 3, 5, 7):
        process = begin("out")
        while len(list((tmp_path / "out").rglob("*.npy"))) < moment and process.poll() is None:
            time.sleep(0.005)
        pressed = moment % 4 == 1
        process.send_signal(signal.SIGINT if pressed else signal.SIGKILL)
        err = ended(process, 130 if pressed else -signal.SIGKILL)
        assert ("videos are done and kept; continue with: lvdm-rt batch" in err) == pressed
    ended(begin("out"), 0)
    assert videos(tmp_path / "out") == videos(tmp_path / "whole")
    assert [name for name in names(tmp_path / "out") if name.startswith(".")] == []


def test_a_second_process_does_not_disturb_the_first(begin, tmp_path):
    first = begin("out")
    while not (tmp_path / "out" / ".batch").exists():
        time.sleep(0.005)
    told = ended(begin("out"), 1)
    assert told == "lvdm-rt: out is in use by another batch; wait for it, or choose another -o\n"
    ended(first, 0)
