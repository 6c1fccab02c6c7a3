"""Between uint8 frames and the networks' tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def to_tensor(frames: NDArray[np.uint8]) -> Tensor:
    """Map uint8 (b, f, h, w, 3) to float32 (b, 3, f, h, w) in −1..1."""
    scaled = frames.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(scaled, -1, 1)))


def to_frames(decoded: Tensor) -> NDArray[np.uint8]:
    """Map (b, 3, f, h, w) about −1..1 to uint8 (b, f, h, w, 3), rounded and clamped."""
    pixels = ((decoded.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.cpu().movedim(1, -1).numpy())


def psnr(frames: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """Mean over clips of each clip's PSNR in dB, 8-bit."""
    error = (frames.astype(np.float64) - decoded).reshape(len(frames), -1)
    mse = np.maximum((error**2).mean(axis=1), 1e-6)
    return float((10 * np.log10(255.0**2 / mse)).mean())
