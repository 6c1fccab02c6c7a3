"""The command line of the tools: what it lists, what it loads, what it completes."""

import os
import sys
from unittest.mock import Mock

import pytest
from click.shell_completion import BashComplete
from toy_files import python

from lvdm_engines.errors import ConfigError
from lvdm_tools import cli
from lvdm_tools.cli import lvdm_tools
from lvdm_tools.quality import command as quality


def test_a_report_that_fails_is_told_where_stdout_is_gone_as_well(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality, "_measure", Mock())
    monkeypatch.setattr(quality.scorecard, "as_dict", Mock(return_value={}))
    monkeypatch.setattr(quality.scorecard, "markdown", Mock(return_value="table"))
    monkeypatch.setattr(quality, "write_report", Mock(side_effect=ConfigError("no room")))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        files = ["--markdown", str(tmp_path / "q.md"), "--json", str(tmp_path / "q.json")]
        assert cli.run(["eval", "sky-tiny", *files]) == 1
    assert capsys.readouterr().err == "lvdm-tools: no room; no room\n"


def test_help_lists_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; from lvdm_tools import cli; cli.run(['--help'])\n"
        "print([name for name in ('numpy', 'torch', 'av', 'yaml') if name in sys.modules])"
    )
    done = python(code)
    *page, heavy = done.stdout.splitlines()
    told = dict(line.strip().split(None, 1) for line in page[page.index("Commands:") + 1 :])
    assert told.keys() == lvdm_tools.commands.keys()
    assert heavy == "[]"


@pytest.mark.parametrize("name", lvdm_tools.commands)
def test_every_listed_command_exists(name):
    command = lvdm_tools.commands[name].make_context(name, [], resilient_parsing=True).command
    assert command.name == name


@pytest.mark.parametrize(
    ("typed", "begun", "offered"),
    [
        (["synth"], "--cl", "--clips"),
        (["eval"], "--samp", "--sampler"),
        (["eval", "--sampler"], "dd", "ddim"),
        (["train", "diffusion"], "--auto", "--autoencoder"),
    ],
)
def test_options_of_commands_are_completed(typed, begun, offered):
    shell = BashComplete(lvdm_tools, {}, "lvdm-tools", "_LVDM_TOOLS_COMPLETE")
    assert offered in [item.value for item in shell.get_completions(typed, begun)]
