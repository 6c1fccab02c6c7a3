"""Networks that place clips of 16 frames in a space of features, by the name a user gives.

`random`: the seeded random features; a bundle: its encoder; a file: the I3D network of FVD. Only
distances in the last may be called FVD and KVD.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import ConfigError
from lvdm_rt.pipeline import Pipeline
from lvdm_tools.quality import i3d
from lvdm_tools.quality.distances import Features

Clips = NDArray[np.uint8]

CLIP = i3d.FRAMES  # frames of what is placed
RANDOM = "random"
_FILES = {*i3d.SUFFIXES, ".pth", ".torchscript", ".jit"}


@dataclass(frozen=True)
class FeatureNetwork:
    """A network: uint8 (n, 16, h, w, 3) → float64 (n, d), each clip by itself.

    `frechet` and `kernel` name the distances in its space; `identity` decides what it gives.
    """

    name: str
    identity: str
    run: Callable[[Clips], Features]
    frechet: str = "Fréchet distance"
    kernel: str = "kernel distance"
    published: bool = False


@contextmanager
def open_network(choice: str, backend: str = "auto") -> Iterator[FeatureNetwork]:
    """Open a network by its name.

    Raises ConfigError: a file that is missing or another network, a bundle without an encoder;
    BundleError, BackendError: a bundle that cannot be opened.
    """
    if choice == RANDOM:
        from lvdm_tools.quality.random_features import features

        yield FeatureNetwork("random features", RANDOM, features)
    elif Path(choice).suffix in _FILES:
        yield _i3d(Path(choice), gpu=backend not in ("cpu", "openvino"))
    else:
        with Pipeline.open(choice, backend) as pipeline:
            yield _encoder(choice, pipeline)


def _i3d(path: Path, *, gpu: bool) -> FeatureNetwork:
    opened = i3d.open_i3d(path, gpu=gpu)

    def run(clips: Clips) -> Features:
        return opened(clips).astype(np.float64)

    return FeatureNetwork("I3D", i3d.identity(path), run, "FVD", "KVD", published=True)


def _encoder(choice: str, pipeline: Pipeline) -> FeatureNetwork:
    graphs = pipeline.manifest.graphs
    if "encoder" not in graphs:
        raise ConfigError(f"{choice} has no encoder; give another bundle, or --features random")

    def run(clips: Clips) -> Features:
        return np.stack([_moments(pipeline.encode(clip)) for clip in clips])

    identity = f"encoder {graphs['encoder'].sha256} {pipeline.arithmetic}"
    return FeatureNetwork(f"encoder of {pipeline.manifest.name}", identity, run)


def _moments(latents: NDArray[np.float32]) -> Features:
    """Return mean, and roots of spread and change over time, of each channel: (c, t, h, w) → (3c,).

    A root makes small changes count: without it the kernel distance would not see a frozen clip.
    """
    x = latents.astype(np.float64)
    change = np.abs(np.diff(x, axis=1)).sum(1).mean((1, 2)) / max(1, x.shape[1] - 1)
    return np.concatenate([x.mean((1, 2, 3)), np.sqrt(x.std((1, 2, 3))), np.sqrt(change)])
