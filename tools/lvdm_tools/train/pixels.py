"""Batches of frames, to the networks and back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(frames: NDArray[np.uint8]) -> Tensor:
    """Map uint8 (b, f, h, w, 3) to float32 (b, 3, f, h, w) in −1..1, channels last in memory."""
    scaled = frames.astype(np.float32) / np.float32(127.5) - np.float32(1.0)
    return torch.from_numpy(np.moveaxis(scaled, -1, 1))


def to_frames(tensor: Tensor) -> NDArray[np.uint8]:
    """Map float (b, 3, f, h, w) in −1..1 back to uint8 (b, f, h, w, 3), rounded and clamped."""
    scaled = tensor.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    frames: NDArray[np.uint8] = scaled.to(torch.uint8).movedim(1, -1).contiguous().cpu().numpy()
    return frames
