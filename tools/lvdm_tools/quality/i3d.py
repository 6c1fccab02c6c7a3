"""The network of FVD: I3D trained on Kinetics-400, from a file that the user brings.

StyleGAN-V's TorchScript file, or what `convert_i3d` made of it, which needs no torch. Features are
the 400 logits of clips of 16 frames at 224×224, resized bilinearly, in −1…1.
Knows no other network.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import GraphSource, file_sha256
from lvdm_engines.errors import BundleError, ConfigError, SessionError, one_line
from lvdm_engines.manifest import GraphFacts, TensorSpec
from lvdm_engines.opening import load_backend

Clips = NDArray[np.uint8]
Logits = NDArray[np.float32]
Network = Callable[[Clips], Logits]

FRAMES, SIDE, LOGITS = 16, 224, 400
SUFFIXES = (".pt", ".onnx")
INPUT = TensorSpec("clips", "float32", ("b", 3, FRAMES, SIDE, SIDE))
OUTPUT = TensorSpec("features", "float32", ("b", LOGITS))
WHERE = (
    "FVD needs the I3D network as StyleGAN-V's authors give it out (i3d_torchscript.pt) or what "
    "lvdm-tools convert-i3d made of it; put it anywhere and give its path"
)


def open_i3d(path: Path, *, gpu: bool = True) -> Network:
    """Open the network: uint8 (n, 16, h, w, 3) → (n, 400), on a GPU if there is one and it may.

    Raises ConfigError: no such file, or it is not that network.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; {WHERE}")
    opened = _onnx(path, gpu) if path.suffix == ".onnx" else _torchscript(path, gpu)

    def logits(clips: Clips) -> Logits:
        if clips.shape[1] != FRAMES:
            raise ConfigError(f"{path}: got clips of {clips.shape[1]} frames, expected {FRAMES}")
        found = opened(clips)
        if found.shape != (len(clips), LOGITS):
            raise ConfigError(
                f"{path}: got features {found.shape}, expected ({len(clips)}, {LOGITS}); {WHERE}"
            )
        return found

    return logits


def identity(path: Path) -> str:
    """Return what decides what the network gives. Raises ConfigError: it cannot be read."""
    try:
        return f"i3d {file_sha256(path)}"
    except BundleError as err:
        raise ConfigError(f"{path}: cannot be read; {WHERE}") from err


def prepare(clips: Clips) -> NDArray[np.float32]:
    """Bring uint8 (n, f, h, w, 3) to what I3D takes: (n, 3, f, 224, 224) in −1…1.

    Bilinear between the centres of pixels, without smoothing before a reduction, as torch does.
    """
    scaled = clips.astype(np.float32) / 127.5 - 1
    for axis in (2, 3):
        low, share = _neighbours(clips.shape[axis])
        high = np.minimum(low + 1, clips.shape[axis] - 1)
        share = share.reshape(-1, *[1] * (4 - axis))
        below, above = (np.take(scaled, place, axis) for place in (low, high))
        scaled = below + (above - below) * share
    return np.ascontiguousarray(scaled.transpose(0, 4, 1, 2, 3))


def _neighbours(size: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return for each of 224 pixels the one below in `size`, and the share of the next one."""
    place = np.maximum((np.arange(SIDE) + 0.5) * size / SIDE - 0.5, 0)
    low = np.minimum(place.astype(np.intp), size - 1)
    return low, (place - low).astype(np.float32)


def _torchscript(path: Path, gpu: bool) -> Network:
    import torch

    device = "cuda" if gpu and torch.cuda.is_available() else "cpu"
    try:
        with warnings.catch_warnings(action="ignore"):  # torch.jit is on its way out
            network: Any = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
            network.eval()
    except (RuntimeError, ValueError, OSError) as err:
        raise ConfigError(f"{path}: it is no TorchScript file; {WHERE}") from err

    @torch.inference_mode()
    def run(clips: Clips) -> Logits:
        pixels = torch.from_numpy(np.ascontiguousarray(clips.transpose(0, 4, 1, 2, 3)))
        try:
            found = network(
                pixels.to(device).float(), rescale=True, resize=True, return_features=True
            )
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError) as err:  # an argument that it does not take
            raise ConfigError(f"{path}: it is another network ({_cause(err)}); {WHERE}") from err
        logits: Logits = found.cpu().numpy()
        return logits

    return run


def _onnx(path: Path, gpu: bool) -> Network:
    facts = GraphFacts(path.name, file_sha256(path), "fp32", (INPUT,), (OUTPUT,))
    source = GraphSource("i3d", facts, path.parent)
    cuda, cpu = load_backend("cuda"), load_backend("cpu")
    backend = cuda if gpu and cuda.unusable() is None else cpu
    if problem := backend.unusable():
        raise ConfigError(f"{path}: {problem}")
    try:
        session = backend.open(source, SessionOptions())
    except (BundleError, SessionError) as err:
        raise ConfigError(f"{path}: it is no I3D network ({_cause(err)}); {WHERE}") from err
    return lambda clips: session.run({INPUT.name: prepare(clips)})[OUTPUT.name]


def _cause(err: Exception) -> str:
    """Return the last line, which says what failed, of an error that shows its program."""
    return one_line((str(err).strip().splitlines() or [type(err).__name__])[-1], 160)
