"""What is left in a home directory: nothing, whatever the libraries underneath would like."""

import json
import os
import shutil
import subprocess
import sys

import pytest

TRAIN = "--data synth --steps 1 --out run -q"
QUICK = {
    "generate": "lvdm-rt generate --backend cpu --frames 4 --mode short --steps 2 -q -o a.npz",
    "info": "lvdm-rt info",
    "doctor": "lvdm-rt doctor",
    "inspect": "lvdm-export inspect sky-tiny",
    "synth": "lvdm-tools synth -o clip.npz --frames 4",
}
SLOW = {
    "bench": "lvdm-tools bench --quick --only graphs --backend cpu --json numbers.json",
    "verify": "lvdm-export verify sky-tiny -q",
    "gpu-check": "lvdm-tools gpu-check -o checked",
    "autoencoder": f"lvdm-tools train autoencoder --config autoencoder.yaml {TRAIN}",
    "diffusion": f"lvdm-tools train diffusion --config denoiser.yaml {TRAIN}",
    "build": "lvdm-export build-engines --predict denoiser/model/model.json"
    " denoiser/model/model.safetensors --autoencoder autoencoder/model/model.safetensors"
    " --out bundle -q",
    "eval": "lvdm-tools eval sky-tiny --clips 2 --frames 8 --conditions 1 --long-videos 0"
    " --steps 2 --backend cpu",
}
LIBRARY = "from lvdm_rt import Pipeline; Pipeline.open().close()"
LOOKS_UP = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
WATCHED = ("-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmmsg", "-o")
MOVED = ("ORT_", "XDG_", "HF_", "MPL")  # variables that would move a library's cache


@pytest.fixture
def spied(tmp_path):
    """Run something and check that it leaves nothing and, where strace is, asks nobody."""
    home, log = tmp_path / "home", tmp_path / "calls.txt"
    home.mkdir()
    tracer = ("strace", *WATCHED, log) if shutil.which("strace") else ()

    def spied(code, arguments=()):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(MOVED)}
        done = subprocess.run(
            [*tracer, sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment | {"HOME": str(home)},
        )
        assert done.returncode == 0 or "needs an NVIDIA GPU" in done.stderr, done.stderr
        own = {home / ".cache", home / ".cache/lvdm-rt"}  # see docs/backends.md
        left = {path for path in home.rglob("*") if home / ".cache/lvdm-rt" not in path.parents}
        assert left <= own
        if not tracer:
            pytest.skip("nothing was left; strace would show whether anything was looked up")
        assert [line for line in log.read_text().splitlines() if "AF_INET" in line] == []

    return spied


def run_command(command, spied):
    name, *arguments = command.split()
    package = name.replace("-", "_")
    spied(f"import sys; from {package}.cli import main; sys.argv[0] = {name!r}; main()", arguments)


@pytest.mark.slow
@pytest.mark.parametrize("command", QUICK.values(), ids=QUICK)
def test_a_command_leaves_nothing_in_an_empty_home_and_asks_nobody(command, spied):
    run_command(command, spied)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Tiny runs of both networks, and their settings."""
    toy_runs, yaml = pytest.importorskip("toy_runs"), pytest.importorskip("yaml")
    folder = tmp_path_factory.mktemp("trained")
    denoiser = toy_runs.changed(
        toy_runs.DENOISER, {"autoencoder": str(folder / "autoencoder"), "steps": 1}
    )
    for name, settings in (("autoencoder", toy_runs.AUTOENCODER), ("denoiser", denoiser)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(settings))))
        toy_runs.train(settings, folder / name)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, id=name, marks=mark)
        for name, command in SLOW.items()
        for mark in [pytest.mark.exhaustive if name in {"bench", "build"} else pytest.mark.slow]
    ],
)
def test_a_long_command_leaves_nothing_either(command, spied, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    run_command(command, spied)


@pytest.mark.slow
def test_the_library_leaves_nothing_in_an_empty_home_and_asks_nobody(spied):
    spied(LIBRARY)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows what is looked up")
def test_a_look_up_would_be_seen(spied):
    with pytest.raises(AssertionError, match="AF_INET"):
        spied(LOOKS_UP)
