"""What the three commands have in common: one voice, and what their exit codes mean."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest.mock import Mock

import click
import pytest

from lvdm_engines.command_line import CommandLine
from lvdm_engines.errors import OptionsError
from lvdm_export import cli as export_cli
from lvdm_rt import cli as runtime_cli
from lvdm_tools import cli as tools_cli

SCRIPTS = {"lvdm-rt": runtime_cli, "lvdm-export": export_cli, "lvdm-tools": tools_cli}


def failing(error):
    def fail():
        raise error

    return CommandLine(click.Command("lvdm-x", callback=fail), "extra", "use less")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OptionsError("got 3,\nexpected 4"), 1, "lvdm-x: got 3, expected 4\n"),
        (MemoryError(), 1, "lvdm-x: out of memory; use less\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "out of memory; use less"),
        (RuntimeError("CUDA out of memory."), 1, "out of memory; use less"),
        (OSError(errno.ENOTDIR, "Not a directory", "a/b"), 1, "lvdm-x: a/b: Not a directory; "),
        (ModuleNotFoundError(name="torch"), 1, "torch is not installed; pip install 'lvdm-rt[ext"),
        (KeyboardInterrupt(), 130, "lvdm-x: interrupted\n"),
    ],
)
def test_every_error_is_one_line_under_the_name_of_its_command(error, code, line, capsys):
    assert failing(error).run([]) == code
    told = capsys.readouterr()
    assert line in told.err
    assert (told.err.strip().count("\n"), told.out) == (0, "")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        ModuleNotFoundError(name="lvdm_rt.gone"),
        ModuleNotFoundError(name="numpy.gone"),
    ],
)
def test_a_fault_of_the_program_is_not_dressed_up_as_the_users(error):
    with pytest.raises(type(error)):
        failing(error).run([])


@pytest.mark.parametrize("name", SCRIPTS)
def test_usage_errors_are_2_and_help_is_0(name, capsys):
    assert SCRIPTS[name].run(["--nonsense"]) == 2
    assert "No such option" in capsys.readouterr().err
    assert SCRIPTS[name].run(["-h"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: {name} [OPTIONS]")


@pytest.mark.parametrize(
    ("name", "command"), [("lvdm-rt", "info"), ("lvdm-export", "inspect"), ("lvdm-tools", "eval")]
)
def test_a_missing_bundle_sounds_the_same_everywhere(name, command, capsys):
    assert SCRIPTS[name].run([command, "nowhere"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"{name}: nowhere: got neither a bundle directory nor a built-in bundle")


@pytest.mark.parametrize(
    "line",
    [
        ["lvdm-export", "inspect", "nowhere"],
        ["lvdm-export", "verify", "nowhere"],
        ["lvdm-export", "verify", "nowhere", "--backend", "abacus"],
        ["lvdm-export", "inspect"],
        ["lvdm-rt", "nosuch"],
    ],
)
def test_an_error_of_every_command_is_json_where_that_is_asked(line, capsys):
    name, *words = line
    assert SCRIPTS[name].run([*words, "--json"]) in (1, 2)
    told = capsys.readouterr()
    assert json.loads(told.out)["error"] in told.err


def test_a_file_for_json_is_no_wish_for_json_on_stdout(capsys):
    assert tools_cli.run(["eval", "sky-tiny", "--clips", "0", "--json", "numbers.json"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_stream(closed, tmp_path):
    program = (
        "import os; from lvdm_engines import command_line; command_line._mend_streams();"
        "told = open('told', 'w'); assert told.fileno() > 2;"
        "told.write(os.readlink('/proc/self/fd/2'))"
    )
    argv = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", program]
    assert subprocess.run(argv, cwd=tmp_path, timeout=60).returncode == 0
    assert (tmp_path / "told").read_text() == os.devnull


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp437", "utf-8:strict"])
def test_symbols_that_stdout_has_not_are_escaped(encoding):
    program = "from lvdm_rt.cli import main; main()"
    how = {"env": {**os.environ, "PYTHONIOENCODING": encoding}, "capture_output": True}
    for words in (["generate", "--help"], ["info"]):
        done = subprocess.run([sys.executable, "-c", program, *words], timeout=60, **how)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("stderr", ["", "2>&-", "2>/dev/full"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_command_that_can_say_nothing_on_stderr_does_its_work(stderr, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    program = "from lvdm_tools.cli import main; main()"
    flags = ["synth", "-o", "sky.npz", "--frames", "2", "--size", "16"]
    argv = ["sh", "-c", f'"$@" {stderr}', "sh", sys.executable, "-c", program, *flags]
    done = subprocess.run(argv, cwd=tmp_path, stderr=writer, timeout=60)
    os.close(writer)
    assert (done.returncode, (tmp_path / "sky.npz").exists()) == (0, True)


def test_what_goes_wrong_is_json_on_stdout_where_stderr_is_gone(monkeypatch, capsys):
    monkeypatch.setattr(click.UsageError, "show", Mock(side_effect=BrokenPipeError))
    assert SCRIPTS["lvdm-rt"].run(["info", "--nope", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["kind"] == "UsageError"


SWALLOWED = """
    import signal, sys, time
    import click
    from lvdm_engines.command_line import CommandLine

    class Careless:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    class HalfMade:
        def __init__(self):
            signal.raise_signal(signal.SIGINT)
            self.closed = False

        def __del__(self):
            assert not self.closed

    @click.command("lvdm-x")
    def command():
        {work}
        time.sleep(20)

    CommandLine(command, None, "").main()
"""
NATIVE = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    raise ImportError
"""


@pytest.mark.parametrize("work", ["Careless()", "import native", "HalfMade()"])
def test_an_interrupt_in_a_constructor_a_destructor_or_an_import_is_one_line(work, tmp_path):
    (tmp_path / "native.py").write_text(NATIVE)
    program = textwrap.dedent(SWALLOWED.format(work=work))
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=15)
    assert (done.returncode, done.stderr.strip()) == (130, "lvdm-x: interrupted")
