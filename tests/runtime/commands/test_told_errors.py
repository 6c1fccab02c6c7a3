"""Errors in the form that is asked for: a clean line, an object on stdout, an event."""

import json
import re
import shutil
import sys

import pytest

LONG = "9" * 400
CPU = ("-o", "a.mp4", "--backend", "cpu")  # which is not tried beside others first
# Python 3.14 says of a path that is too long that nothing is there, and it is met later.
NO_SUCH_NAME = "OSError" if sys.version_info < (3, 14) else "VideoError"


@pytest.mark.parametrize(
    ("line", "kind", "code"),
    [
        (["generate", "-o", "a.mp4", "--frames", "0"], "UsageError", 2),
        (["generate", "-o", "a.mp4", "--nope"], "UsageError", 2),
        (["generate"], "UsageError", 2),
        (["generate", "-o", "a.mp4", "--eta", "1", "--sampler", "ddpm"], "UsageError", 2),
        (["generate", "-o", "a.mp4", "--bundle", "nowhere"], "BundleError", 1),
        (["generate", *CPU, "--condition", "none.mp4"], "VideoError", 1),
        (["generate", "-o", "a" * 300 + ".mp4"], NO_SUCH_NAME, 1),
        (["info", "nowhere"], "BundleError", 1),
        (["info", "--nope"], "UsageError", 2),
        (["doctor", "too", "many"], "UsageError", 2),
    ],
)
def test_with_json_every_error_is_one_object_on_stdout(command, line, kind, code):
    got, out, err = command(*line, "--json")
    told = json.loads(out)
    assert (got, told.keys(), told["kind"]) == (code, {"error", "kind"}, kind)
    assert told["error"] in err


@pytest.mark.parametrize("form", [["--progress", "json"], ["--progress=json"]])
@pytest.mark.parametrize(
    ("flags", "kind"), [(["--frames", "0"], "UsageError"), (["--bundle", "nowhere"], "BundleError")]
)
def test_with_progress_as_json_every_error_is_an_event(command, form, flags, kind):
    _, out, err = command("generate", "-o", "a.mp4", *flags, *form)
    told = json.loads(err.splitlines()[-1])
    assert (out, told["event"], told["kind"]) == ("", "error", kind)


@pytest.mark.parametrize("typed", ["\x1b[31mred", "two\nlines", LONG])
@pytest.mark.parametrize("flag", ["--frames", "--backend", "--guidance", "--"])
def test_what_was_typed_comes_back_clean_and_short(command, flag, typed):
    code, _, err = command("generate", "-o", "a.mp4", flag, typed)
    *_, line = err.splitlines()
    assert code in (1, 2)
    assert line.startswith(("Error: ", "lvdm-rt: "))
    assert len(line) < 320
    assert not [character for character in line if not character.isprintable()]


def test_no_arguments_ask_for_help(command):
    code, out, err = command()
    assert code in (0, 2)  # before click 8.2, and since
    assert "Commands:\n" in out + err


def test_names_of_files_are_logged_clean(start, toy, tmp_path):
    (tmp_path / ".a\x1b[31m.npz.01234567.partial").touch()
    flags = ("--bundle", toy, "--frames", "4", "-v", "--backend", "cpu")
    run = start("generate", "-o", "a\x1b[31m.npz", *flags)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "removed, a killed process left it" in err
    assert "\x1b" not in err


@pytest.mark.slow
def test_verbose_tells_what_is_called_how_often_and_how_long_it_took(start, toy):
    flags = ("--bundle", toy, "--frames", "20", "--sampler", "ddim", "--steps", "3", "--json")
    _, quiet = start("generate", "-o", "a.npz", *flags).communicate(timeout=60)
    _, told = start("generate", "-o", "b.npz", *flags, "-v").communicate(timeout=60)
    _, more = start("generate", "-o", "c.npz", *flags, "-vv").communicate(timeout=60)
    planned = re.findall(r"clips of a video (\d+), calls of (\w+) for each (\d+), by ddim", told)
    called = dict(re.findall(r"(\w+): calls (\d+), together \d+\.\d\d s", told))
    for clips, graph, calls in planned:  # up to four clips to a call
        assert int(called[graph]) % int(calls) == 0
        assert int(called[graph]) <= int(clips) * int(calls)
    assert {graph for _, graph, _ in planned} | {"decoder"} == set(called)
    assert "calls" not in quiet
    assert "a call of" not in told
    assert len(re.findall(r"\w+: a call of \d+\.\d ms", more)) == sum(map(int, called.values()))


def test_a_bundle_with_an_odd_name_is_shown_clean(command, toy, tmp_path):
    shutil.copytree(toy, tmp_path / "toy\x1b[31m")
    code, out, _ = command("info", "toy\x1b[31m")
    assert (code, "\x1b" in out) == (0, False)
