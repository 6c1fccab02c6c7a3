"""What the pages of the documentation take for granted: films, pictures, checkpoints, a bundle.

Knows no page and no command: `INPUTS` has a pattern for each name, and what writes such a file.
"""

import re
import runpy
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
BUILT_IN = TESTS.parent / "engines/lvdm_engines/bundles/sky-tiny"


def film(path: Path) -> None:
    """Write a film of four seconds with sound."""
    toys("toy_films.py")["film"](path, sound="aac")


def pictures(path: Path) -> None:
    """Write a folder of pictures."""
    toys("toy_films.py")["write_pictures"](path, list(range(20, 220, 10)))


def picture(path: Path) -> None:
    """Write one picture."""
    from matplotlib.image import imsave

    imsave(path, toys("toy_films.py")["plain"]([120], (48, 64))[0])


def clip(path: Path) -> int:
    """Return the latents of a tiny denoiser's clip: 16 frames of those for short clips."""
    return 8 if "sky" in path.name or "taichi" in path.name else 5


def configuration(path: Path) -> None:
    """Write the YAML of a tiny denoiser as the authors write theirs."""
    import yaml
    from toy_checkpoints import official_yaml

    described = official_yaml()
    network = described["model"]["params"]["unet_config"]["params"]
    network["temporal_length"] = clip(path)
    path.write_text(yaml.safe_dump(described))


def text_configuration(path: Path) -> None:
    """Write the YAML of a tiny text-to-video model as the authors write theirs, for 16 frames."""
    import yaml
    from toy_t2v import CONFIG

    described = deepcopy(CONFIG)
    described["model"]["params"]["video_length"] = 16
    path.write_text(yaml.safe_dump(described))


def checkpoint(path: Path) -> None:
    """Write a tiny denoiser with its autoencoder as the authors' trainer does."""
    import torch
    from toy_checkpoints import AUTOENCODER, UNET, filled, official_state

    from lvdm_export.nets.autoencoder3d import Autoencoder3d
    from lvdm_export.nets.unet3d import UNet3d

    config = replace(UNET, temporal_length=clip(path))
    networks = [filled(UNet3d(config), seed) for seed in (1, 2)]
    state = official_state(*networks, filled(Autoencoder3d(AUTOENCODER), 3))
    torch.save({"state_dict": state}, path)


def autoencoder(path: Path) -> None:
    """Write the autoencoder of `checkpoint` alone."""
    import torch
    from toy_checkpoints import AUTOENCODER, filled

    from lvdm_export.nets.autoencoder3d import Autoencoder3d

    torch.save({"state_dict": filled(Autoencoder3d(AUTOENCODER), 3).state_dict()}, path)


def text_checkpoint(path: Path) -> None:
    """Write a tiny text-to-video model as the authors' trainer does."""
    import torch
    from toy_t2v import encoder, official_text_state

    torch.save({"state_dict": official_text_state(encoder())}, path)


def merges(path: Path) -> None:
    """Write a short list of merges, gzipped."""
    import gzip

    from toy_t2v import MERGES

    path.write_bytes(gzip.compress("\n".join(["#version: 0.2", *MERGES, ""]).encode()))


def bundle(path: Path) -> None:
    """Copy the built-in bundle."""
    shutil.copytree(BUILT_IN, path)


def text_bundle(path: Path) -> None:
    """Write a toy bundle that reads text."""
    from toy_prompted import write_prompted_bundle

    write_prompted_bundle(path)


def prompts(path: Path) -> None:
    """Write a list of prompts."""
    path.write_text('red sky\n{"prompt": "blue", "seed": 3, "frames": 40, "out": "blue.mp4"}\n')


def jobs(path: Path) -> None:
    """Write a list of jobs."""
    lines = ('{"seed": 3, "name": "red.mp4"}', '{"seed": 4, "frames": 40, "preset": "fast"}')
    path.write_text("\n".join(lines) + "\n")


def ucf101(path: Path) -> None:
    """Write a video of UCF-101 for training and one for tests, with their lists."""
    for group, part in ((8, "train"), (1, "test")):
        name = f"Archery/v_Archery_g{group:02}_c01.avi"
        toys("toy_films.py")["write_video"](path / "UCF-101" / name, [100] * 20)
        (path / f"{part}list01.txt").write_text(f"{name}\n")


def sky_timelapse(path: Path) -> None:
    """Write one clip of Sky Time-lapse."""
    pictures(path / "sky_train" / "a" / "a_1")


def taichi(path: Path) -> None:
    """Write one video of Taichi-HD, cut already."""
    toys("toy_films.py")["write_video"](path / "train" / "a#000000#000020.mp4", [100] * 20)


INPUTS: dict[str, Callable[[Path], None]] = {
    r"\bclip\.mp4": film,
    r"\bframes/": pictures,
    r"\bstill\.jpg": picture,
    r"\b(?:predict|interp|sky|taichi)\.yaml": configuration,
    r"\btext2video\.yaml": text_configuration,
    r"\b(?:predict|later|interp|short_sky|short_taichi)\.ckpt": checkpoint,
    r"\bae_(?:sky|taichi)\.ckpt": autoencoder,
    r"\bt2v\.ckpt": text_checkpoint,
    r"\bbpe_simple_vocab_16e6\.txt\.gz": merges,
    r"(?<!--out )\bmy-bundle\b": bundle,
    r"\btext-bundle\b": text_bundle,
    r"\bprompts\.txt": prompts,
    r"\bjobs\.jsonl": jobs,
    r"\bUCF101\b": ucf101,
    r"\bsky_timelapse\b": sky_timelapse,
    r"(?<=prepare taichi )taichi\b": taichi,
}


def toys(name: str) -> dict[str, Any]:
    """Return what a file of the tests defines."""
    return runpy.run_path(str(TESTS / name))


def provide(text: str, folder: Path) -> None:
    """Make in a folder what a command takes for granted and what is not there."""
    for pattern, make in INPUTS.items():
        for name in re.findall(pattern, text):
            if not (folder / name).exists():
                make(folder / name)
