import numpy as np
import torch

from lvdm_tools.train.pixels import to_frames, to_tensor


def test_pixels_survive_the_way_to_tensors_and_back():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 4, 8, 8, 3)
    tensor = to_tensor(frames)
    assert tensor.shape == (1, 3, 4, 8, 8)
    assert (tensor.min(), tensor.max()) == (-1, 1)
    np.testing.assert_array_equal(to_frames(tensor), frames)


def test_values_outside_the_range_are_clamped():
    assert (to_frames(torch.full((1, 3, 1, 2, 2), 1.7)) == 255).all()
