"""Many videos from a list of prompts: each as if it had been made alone."""

import json
from unittest.mock import Mock

import numpy as np
import pytest
from toy_files import names

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")

from lvdm_engines.errors import SessionError
from lvdm_rt import Pipeline
from lvdm_rt.video import VideoWriter


@pytest.fixture
def listed(command, told, tmp_path):
    """Make the videos of a list; a line is text or what its JSON says. Returns stdout, stderr."""

    def listed(lines, *flags, code=0):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "list.txt").write_text("\n".join(texts))
        words = ("generate", "--prompts", "list.txt", "--bundle", told, "--frames", "20")
        got, out, err = command(*words, *flags)
        assert got == code, err
        return out, err

    return listed


LINES = [
    "red",
    {"prompt": "blue", "seed": 3, "out": "blue.npz"},
    "",
    {"prompt": "green sky", "frames": 40, "seed": 9, "out": "green.npz"},
    {"prompt": "", "seed": 3},
]
ALONE = {
    "a-000.npz": ("--prompt", "red"),
    "blue.npz": ("--prompt", "blue", "--seed", "3"),
    "green.npz": ("--prompt", "green sky", "--seed", "9", "--frames", "40"),
    "a-003.npz": ("--prompt", "", "--seed", "3"),
}


@pytest.mark.parametrize("batch_size", ["1", "3", "4"])
def test_each_video_of_a_list_is_the_one_that_is_made_alone(
    listed, command, told, frames_of, settings_of, batch_size
):
    listed(LINES, "-o", "a.npz", "--exact", "--batch-size", batch_size)
    for name, flags in ALONE.items():
        words = ("generate", "-o", f"alone-{name}", "--bundle", told, "--frames", "20", "--exact")
        assert command(*words, "--batch-size", batch_size, *flags)[0] == 0
        assert np.array_equal(frames_of(name), frames_of(f"alone-{name}"))
        assert settings_of(name) | {"file": 0} == settings_of(f"alone-{name}") | {"file": 0}


def test_what_was_made_is_told_in_the_order_of_the_list(listed):
    out, _ = listed(LINES, "-o", "a.npz", "--json", "-q")
    told = json.loads(out)
    assert told["outputs"] == ["a-000.npz", "blue.npz", "green.npz", "a-003.npz"]
    assert [own["prompts"][0][1] for own in told["settings"]] == ["red", "blue", "green sky", ""]


def test_events_count_the_videos_of_a_list(listed):
    _, err = listed(LINES, "-o", "a.npz", "--progress", "json")
    events = [json.loads(line) for line in err.splitlines()]
    start = next(event for event in events if event["event"] == "start")
    assert start["videos"] == len(ALONE)


@pytest.mark.parametrize("whole", [0, 3])
def test_an_interrupted_list_goes_on_where_it_was(listed, monkeypatch, frames_of, tmp_path, whole):
    listed(LINES, "-o", "a.npz")
    expected = {name: frames_of(name) for name in ALONE}
    for name in [*ALONE, *(f"{name}.json" for name in ALONE)]:
        (tmp_path / name).unlink()
    write, written = VideoWriter.write, []

    def interrupted(self, frames):
        if len({id(writer) for writer in [*written, self]}) > whole:
            raise KeyboardInterrupt
        written.append(self)  # kept, so that no later one has its id
        write(self, frames)

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "write", interrupted)
        _, err = listed(LINES, "-o", "a.npz", code=130)
    assert "continue with: lvdm-rt generate --prompts list.txt" in err
    listed(LINES, "-o", "a.npz", "--resume")
    assert all(np.array_equal(frames_of(name), frames) for name, frames in expected.items())
    assert not [name for name in names(tmp_path) if name.endswith(".work")]


def test_a_list_that_fails_after_its_first_length_says_how_to_go_on(listed, monkeypatch, frames_of):
    stream, calls = Pipeline.stream_videos, []

    def broken(self, *arguments, **how):
        calls.append(arguments)
        if len(calls) == 2:
            raise SessionError("the device is gone")
        return stream(self, *arguments, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "stream_videos", broken)
        _, err = listed(LINES, "-o", "a.npz", code=1)
    assert "the device is gone; finished clips are kept; continue with: lvdm-rt" in err
    listed(LINES, "-o", "a.npz", "--resume")
    assert len(frames_of("green.npz")) == 40


def test_a_changed_list_is_not_gone_on_with_and_the_change_is_named(listed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "write", Mock(side_effect=KeyboardInterrupt))
        listed(LINES, "-o", "a.npz", code=130)
    changed = [LINES[0], {**LINES[1], "prompt": "green"}, *LINES[2:]]
    _, err = listed(changed, "-o", "a.npz", "--resume", code=1)
    assert "interrupted run with each[1] " in err
    assert "blue" in err
    assert "green" in err


def test_a_video_of_a_list_is_repeated_from_its_sidecar(listed, command, told, frames_of):
    listed(LINES, "-o", "a.npz", "--exact")
    words = ("generate", "--from", "blue.npz.json", "--bundle", told, "-o", "again.npz")
    assert command(*words)[0] == 0
    assert np.array_equal(frames_of("again.npz"), frames_of("blue.npz"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "list.txt: holds no prompt, expected one in each line"),
        (
            ["red", {"prompt": "a", "sed": 3}],
            "list.txt, line 2: Object contains unknown field `sed",
        ),
        ([{"seed": 3}], "line 1: Object missing required field `prompt`"),
        (['{"prompt": "a"'], "line 1: Input data was truncated; expected a prompt, or JSON"),
        ([{"prompt": "a", "out": "x\0.npz"}], "line 1: got out 'x\\x00.npz', expected a name"),
        (["red", {"prompt": "a", "frames": 0}], "line 2: got frames 0"),
        ([{"prompt": "a", "seed": -1}], "got seed -1, expected a whole number from 0"),
        ([{"prompt": "a", "out": "a.avi"}], "suffix '.avi' is not one of"),
        ([{"prompt": "a", "out": "-"}], "got out - in a list"),
        ([{"prompt": "a", "out": "a.npz"}, {"prompt": "b", "out": "./a.npz"}], "no name twice"),
        (["a\x1bb"], "control character U+001B"),
    ],
)
def test_a_list_that_cannot_be_meant_is_one_line(listed, tmp_path, monkeypatch, lines, message):
    monkeypatch.setattr("lvdm_rt.pipeline.open_sessions", Mock(side_effect=AssertionError))
    out, err = listed(lines, "-o", "a.npz", code=1)
    assert message in err
    assert (out, len(err.splitlines()), names(tmp_path)) == ("", 1, ["list.txt"])


def test_a_list_that_is_no_text_or_not_there_is_one_line(command, told, tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"red\n\xff\xfe")
    words = ("generate", "-o", "a.npz", "--bundle", told, "--prompts")
    assert "bytes.txt, line 2: 'utf-8' codec can't decode" in command(*words, "bytes.txt")[2]
    assert (
        "none.txt: cannot be read: No such file or directory; give"
        in command(*words, "none.txt")[2]
    )


def test_a_list_may_begin_with_a_byte_order_mark(command, told, tmp_path, settings_of):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfred\r\n")
    words = ("generate", "-o", "a.npz", "--bundle", told, "--frames", "12", "--prompts", "list.txt")
    assert command(*words)[0] == 0
    assert settings_of("a.npz")["prompts"] == [[0, "red"]]


def test_a_line_without_a_name_needs_one_for_all(listed):
    assert "names no out; give it one, or --out for all" in listed(LINES, code=1)[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--prompt", "red"), "leave out --prompt"),
        (("--videos", "2"), "leave out --videos"),
        (("--first-video", "2"), "leave out --first-video"),
        (("-o", "-"), "takes one video, not --prompts"),
    ],
)
def test_what_a_list_says_for_each_video_is_not_said_for_all(listed, flags, message):
    assert message in listed(LINES, "-o", "a.npz", *flags, code=2)[1]
