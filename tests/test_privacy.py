"""What is left in a home directory: nothing, whatever the libraries underneath would like."""

import json
import os
import shutil
import subprocess
import sys

import pytest

PREFIX = "import sys; from {package}.cli import main; sys.argv[0] = '{name}'; main()"
TINY = ("--config", "tiny.yaml", "--data", "synth", "--steps", "1", "--out", "run", "-q")
COMMANDS = {
    "generate": ("lvdm-rt", "lvdm_rt", ["generate", "--frames", "4", "--mode", "short", "--steps"]),
    "info": ("lvdm-rt", "lvdm_rt", ["info"]),
    "doctor": ("lvdm-rt", "lvdm_rt", ["doctor"]),
    "verify": ("lvdm-export", "lvdm_export", ["verify", "sky-tiny", "-q"]),
    "inspect": ("lvdm-export", "lvdm_export", ["inspect", "sky-tiny"]),
    "synth": ("lvdm-tools", "lvdm_tools", ["synth", "-o", "clip.npz", "--frames", "4"]),
    "train": ("lvdm-tools", "lvdm_tools", ["train", "autoencoder", *TINY]),
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


@pytest.fixture
def spied(home):
    """Run something and check that it leaves nothing and, where strace is, asks nobody."""
    log = home.parent / "calls.txt"
    watched = ("-f", "-qq", "--seccomp-bpf", "-o", log, "-e", "trace=connect,sendto,sendmmsg")
    tracer = ("strace", *watched) if shutil.which("strace") else ()

    def spied(code, arguments=()):
        done = run(code, arguments, home, tracer)
        assert done.returncode == 0, done.stderr
        assert list(home.rglob("*")) == []
        calls = log.read_text().splitlines() if tracer else []
        assert [line for line in calls if "AF_INET" in line] == []

    return spied


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("train", "verify") else [])
        for name in COMMANDS
    ],
)
def test_a_command_leaves_nothing_in_an_empty_home_and_asks_nobody(command, spied, home):
    name, package, arguments = COMMANDS[command]
    if command == "generate":
        arguments = [*arguments, "2", "-q", "-o", "a.npz"]
    if command == "train":
        toy_runs = pytest.importorskip("toy_runs")
        (home.parent / "tiny.yaml").write_text(json.dumps(toy_runs.AUTOENCODER))
    spied(PREFIX.format(package=package, name=name), arguments)


def test_the_library_leaves_nothing_in_an_empty_home_and_asks_nobody(spied):
    spied(LIBRARY)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows what is looked up")
def test_a_look_up_would_be_seen(spied):
    with pytest.raises(AssertionError, match="AF_INET"):
        spied("import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))")
