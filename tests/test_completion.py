"""What Tab gives: the words that are offered, and what bash makes of them."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest
from click.shell_completion import ShellComplete
from test_command_lines import SCRIPTS

BUNDLE = {("dir", ""), ("plain", "sky"), ("plain", "sky-tiny")}
FILE = {("file", "")}
BACKENDS = {
    ("plain", name) for name in ("auto", "tensorrt", "tensorrt-rtx", "cuda", "openvino", "cpu")
}


def offered(line):
    """Kind and value of everything that is offered after a line that ends with a blank."""
    name, *words = line.split()
    command = getattr(SCRIPTS[name], name.replace("-", "_"))
    shell = ShellComplete(command, {}, name, "_COMPLETE")
    return {(item.type, item.value) for item in shell.get_completions(words, "")}


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("lvdm-rt generate -o", FILE),
        ("lvdm-rt generate --condition", FILE),
        ("lvdm-rt generate --from", FILE),
        ("lvdm-rt generate --bundle", BUNDLE),
        ("lvdm-rt generate --preset", {("plain", n) for n in ("fast", "balanced", "paper")}),
        ("lvdm-rt generate --backend", BACKENDS),
        ("lvdm-rt info", BUNDLE),
        ("lvdm-export build-engines --predict", FILE),
        ("lvdm-export build-engines --predict a.yaml", FILE),
        ("lvdm-export build-engines --autoencoder", FILE),
        ("lvdm-export build-engines --bundle", BUNDLE),
        ("lvdm-export build-engines --refit-from", BUNDLE),
        ("lvdm-export verify", BUNDLE),
        ("lvdm-export verify --backend", BACKENDS),
        ("lvdm-export verify sky-tiny --reference", BUNDLE),
        ("lvdm-export inspect", BUNDLE),
        ("lvdm-tools eval", BUNDLE),
        ("lvdm-tools eval sky-tiny --data", {("dir", ""), ("plain", "synth")}),
        ("lvdm-tools train diffusion --data", {("dir", ""), ("plain", "synth")}),
        ("lvdm-tools train diffusion --out", FILE),
    ],
)
def test_names_and_paths_are_offered(line, whole):
    assert offered(line) == whole


def test_the_ready_configs_and_files_are_offered():
    found = offered("lvdm-tools train autoencoder --config")
    assert found > {("file", ""), ("plain", "sky-tiny-autoencoder"), ("plain", "toy")}


@pytest.fixture
def press(tmp_path):
    """Type a line into bash with the documented command, press Tab, and return what it became."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    program = tmp_path / "bin" / "lvdm-rt"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom lvdm_rt.cli import main\nmain()\n")
    program.chmod(0o755)
    place = tmp_path / "place"
    place.mkdir()
    above, below = pty.openpty()
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=below,
        stdout=below,
        stderr=below,
        cwd=place,
        start_new_session=True,
        env={
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TERM": "dumb",
            "PS1": "",
        },
    )
    os.close(below)

    def until(mark):
        seen, started = "", time.monotonic()
        while mark not in seen.replace("\r", ""):
            assert time.monotonic() - started < 30, seen
            if select.select([above], [], [], 0.1)[0]:
                seen += os.read(above, 1 << 16).decode()
        return seen.replace("\r", "")

    def press(typed, files, folders):
        for name in files:
            (place / name).touch()
        for name in folders:
            (place / name).mkdir()
        os.write(above, b'eval "$(_LVDM_RT_COMPLETE=bash_source lvdm-rt)"; echo rea""dy\n')
        until("ready\n")
        # then the line is no command any more, but printed word by word
        os.write(above, typed.encode() + b"\t\x01printf '<%s>' \x05; echo do''ne\n")
        return until(">done\n").rpartition("\n<lvdm-rt>")[2].partition("done")[0]

    yield press
    bash.kill()
    bash.wait()
    os.close(above)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "became"),
    [
        ("lvdm-rt generate --condition my", "<generate><--condition><my film.mp4>"),
        ("lvdm-rt generate --from=nex", "<generate><--from=next.mp4.json>"),
        ("lvdm-rt generate --preset=fa", "<generate><--preset=fast>"),
        ("lvdm-rt generate -o out/a", "<generate><-o><out/a.mp4/>"),
        ("lvdm-rt info sky-ti", "<info><sky-tiny>"),
        ("lvdm-rt info other", "<info><other bundle/>"),
        ("lvdm-rt generate --bundle s", "<generate><--bundle><s>"),  # sky-tiny or sunset
        ("lvdm-rt generate --backend tensorrt-", "<generate><--backend><tensorrt-rtx>"),
        ("lvdm-rt generate --preset ba", "<generate><--preset><balanced>"),
    ],
)
def test_bash_completes_names_and_paths(press, typed, became):
    files = ("my film.mp4", "next.mp4.json")
    assert press(typed, files, ("out", "other bundle", "sunset", "out/a.mp4")) == became
