"""Build the wheel, install it with only what generation needs, and use it without torch.

Run as a script by `make test`: it needs a package index, which tests do not.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent

IMPORTS = """
import sys
import lvdm_engines, lvdm_rt
heavy = {"torch", "onnx", "av", "onnxruntime", "tensorrt"} & set(sys.modules)
assert not heavy, f"importing the runtime loaded {heavy}"
"""


def run(*command: object, expect: int = 0) -> str:
    """Run a command, fail unless it exits with `expect`, and return what it printed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    output = done.stdout + done.stderr
    if done.returncode != expect:
        sys.exit(f"{command}: exit {done.returncode}, expected {expect}\n{output}")
    return output


def check_missing_extra(script: Path, *arguments: object, extra: str) -> None:
    """A console script whose extra is missing says in one line what to install."""
    output = run(script, *arguments, expect=1)
    if f"lvdm-rt[{extra}]" not in output or len(output.strip().splitlines()) != 1:
        sys.exit(f"{script.name} without its extra should say one line, said:\n{output}")


def main() -> None:
    """Build, install, import, and call the console scripts."""
    with tempfile.TemporaryDirectory() as folder:
        wheels = Path(folder) / "wheels"
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT)
        (wheel,) = wheels.glob("lvdm_rt-*.whl")
        environment = Path(folder) / "venv"
        venv.create(environment, with_pip=True)
        scripts = environment / "bin"
        pip = (scripts / "python", "-m", "pip", "install", "-q")
        run(*pip, wheel)
        run(scripts / "python", "-c", IMPORTS)
        run(scripts / "lvdm-rt", "--help")
        video = (scripts / "lvdm-rt", "generate", "--frames", "16", "-o", Path(folder) / "sky.npz")
        check_missing_extra(*video, extra="cpu")
        export = ("build-engines", "--predict", "a.yaml", "a.ckpt", "--out", "bundle")
        check_missing_extra(scripts / "lvdm-export", *export, extra="export")
        train = ("train", "diffusion", "--config", "toy", "--data", "synth", "--out", "run")
        check_missing_extra(scripts / "lvdm-tools", *train, extra="tools")
        run(*pip, f"{wheel}[cpu]")
        run(*video)
    print("wheel with what generation needs only: ok")  # noqa: T201 - a script


if __name__ == "__main__":
    main()
