"""A small denoiser with random weights, and how close to it another form has to be."""

import torch

from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig


def assert_close(actual, expected, tolerance=2e-6):
    """Compare relative to the largest magnitude; the default allows another order of sums."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def small_unet(**changes):
    config = dict(  # noqa: C408 - keyword arguments read better
        in_channels=5,
        model_channels=16,
        num_res_blocks=1,
        channel_mult=(1, 2),
        attention_resolutions=(2,),
        num_heads=2,
        num_classes=11,
        norm_groups=8,
    )
    network = UNet3d(UNet3dConfig(**config | changes)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network
