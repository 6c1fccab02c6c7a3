"""The script that runs the commands of the documentation: what is one, and what it says of it."""

import pytest
from documented import TOO_LONG, Command, Shell, commands, run_one, to_run

PAGE = """
Run `lvdm-rt generate` or `lvdm-rt generate
--frames 8 -o sky.mp4`, which makes `sky.mp4`:

```
not a command
```

```sh
make install    # all of it
lvdm-rt \\
doctor
```

```python
print(1)
print(2)
```
"""


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path, 0.01)


def test_commands_are_lines_of_marked_blocks_and_command_lines_in_the_text(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    found = [command.text for command in commands(page)]
    line = "lvdm-rt generate --frames 8 -o sky.mp4"
    block = ["make install    # all of it", "lvdm-rt doctor", "print(1)\nprint(2)\n"]
    assert found == ["lvdm-rt generate", line, *block]
    assert [command.text for command in to_run(page)] == [line, *block]


def test_a_page_is_one_terminal(shell):
    for line in ("mkdir a && cd a && export KEPT=1", 'test "$KEPT" = 1', "true > here"):
        assert run_one("page", Command(line, "sh"), shell).summary == "ran, 0 s"
    assert (shell.folder / "a" / "here").exists()
    assert shell.where() == shell.folder / "a"


def test_a_command_that_fails_is_told_with_its_last_line(shell):
    outcome = run_one("page", Command("echo one; echo two >&2; (exit 3)", "sh"), shell)
    assert outcome.failed
    assert outcome.summary == "FAILED, 0 s: exit 3: two"
    assert "one\ntwo\n" in shell.log.read_text()


def test_a_command_that_takes_too_long_is_ended(shell):
    assert shell.run(Command("echo begun; sleep 60", "sh")) == (TOO_LONG, "begun\n")


def test_what_cannot_run_here_is_not_run(shell):
    outcome = run_one("page", Command("docker build . && touch here", "sh"), shell)
    assert (outcome.summary, outcome.failed) == ("not run: needs docker", False)


def test_what_a_page_takes_for_granted_is_made(shell):
    assert not run_one("page", Command("test -s clip.mp4", "sh"), shell).failed
    made = run_one("page", Command("test -e my-bundle/manifest.json", "sh"), shell)
    assert not made.failed
    assert run_one("page", Command("test -e out/my-bundle", "sh"), shell).failed
