"""What an interrupted or finished run has left: work directories, videos and their sidecars."""

import logging
import shutil
from pathlib import Path

import toy_frames
from fuzz.kind import Kind, Rng, command, commands, outputs
from toy_damage import damage

from lvdm_rt import GenerateOptions, Pipeline

FLAGS = ("--backend", "cpu", "--frames", "24", "--seed", "3", "--exact", "-q")
WORK = ".sky.npz.work"


def prepare(folder: Path) -> None:
    """Write the toy bundle, a video of it, and the work directory of a run that was killed."""
    toy = toy_frames.write_bundle(folder / "toy")
    (folder / "whole").mkdir()
    command(["generate", "--bundle", str(toy), *FLAGS, "-o", str(folder / "whole" / "sky.npz")])
    with Pipeline.open(toy, "cpu") as pipeline:
        options = GenerateOptions(frames=24, seed=3, exact=True)
        for _ in pipeline.stream(options, work=folder / WORK):
            pass


def work(folder: Path, rng: Rng) -> str:
    """Change one file of the work directory."""
    files = [path for path in sorted((folder / WORK).rglob("*")) if path.is_file()]
    path = files[int(rng.integers(len(files)))]
    return f"{path.name}: {damage(path, rng)}"


def resume(folder: Path) -> int:
    """Go on with the run: the same frames, or a refusal that leaves the work where it is."""
    logging.disable(logging.WARNING)  # of clips that are made again
    before = {path.name for path in folder.iterdir()}
    code = command(["generate", "--bundle", "./toy", *FLAGS, "-o", "sky.npz", "--resume"])
    if code == 0:
        outputs(folder, before - {WORK}, {"sky.npz": True, "sky.npz.json": True})
        made, whole = (folder / "sky.npz").read_bytes(), folder / "whole" / "sky.npz"
        if made != whole.read_bytes():
            raise AssertionError("other frames")
    else:
        outputs(folder, before, {})
    return code


def sidecar(folder: Path, rng: Rng) -> str:
    """Change a finished video or its sidecar."""
    name = ("sky.npz", "sky.npz.json")[int(rng.integers(2))]
    return f"{name}: {damage(folder / name, rng)}"


def repeat(folder: Path) -> int:
    """Repeat the video by its sidecar, and make it again where it is damaged."""
    logging.disable(logging.WARNING)
    bundle = ("--bundle", "./toy")
    again = ("generate", "--from", "sky.npz.json", "-o", "again.npz", "-q", "--frames", "24")
    anew = ("generate", *FLAGS, "-o", "sky.npz", "--resume", "--force")
    return commands("lvdm_rt", [*again, *bundle, "--backend", "cpu"], [*anew, *bundle])


def prepare_sidecar(folder: Path) -> None:
    """Write the same without an interrupted run, and the video where it is to be."""
    prepare(folder)
    shutil.rmtree(folder / WORK)
    shutil.copytree(folder / "whole", folder, dirs_exist_ok=True)


KINDS = (
    Kind("work directory", prepare, work, resume),
    Kind("sidecar", prepare_sidecar, sidecar, repeat),
)
