"""What is left in a home directory: nothing, whatever the libraries underneath would like."""

import os
import shutil
import subprocess
import sys

import pytest

PREFIX = "import sys; from {package}.cli import main; sys.argv[0] = '{name}'; main()"
COMMANDS = {
    "generate": ("lvdm-rt", "lvdm_rt", ["generate", "--frames", "4", "--mode", "short", "--steps"]),
    "info": ("lvdm-rt", "lvdm_rt", ["info"]),
    "doctor": ("lvdm-rt", "lvdm_rt", ["doctor"]),
    "verify": ("lvdm-export", "lvdm_export", ["verify", "sky-tiny", "-q"]),
    "inspect": ("lvdm-export", "lvdm_export", ["inspect", "sky-tiny"]),
    "synth": ("lvdm-tools", "lvdm_tools", ["synth", "--help"]),
}
LIBRARY = "from lvdm_rt import Pipeline; Pipeline.open().close()"


def run(code, arguments, home, tracer=()):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_", "HF_"))}
    return subprocess.run(
        [*tracer, sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=home.parent,
        env=environment | {"HOME": str(home), "MPLCONFIGDIR": str(home.parent / "mpl")},
    )


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_leaves_nothing_in_an_empty_home(command, home):
    name, package, arguments = COMMANDS[command]
    if command == "generate":
        arguments = [*arguments, "2", "-q", "-o", str(home.parent / "a.npz")]
    done = run(PREFIX.format(package=package, name=name), arguments, home)
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []


def test_the_library_leaves_nothing_in_an_empty_home(home):
    assert run(LIBRARY, [], home).returncode == 0
    assert list(home.rglob("*")) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows what is looked up")
def test_nothing_is_looked_up_or_connected_to(home):
    tracer = ["strace", "-f", "-qq", "-e", "trace=connect,sendto"]
    done = run(LIBRARY, [], home, tracer)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "AF_INET" in line] == []
