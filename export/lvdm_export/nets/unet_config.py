"""The sizes of a denoiser; knows nothing of its layers."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from lvdm_export.nets.sizes import Blocks, Frames, Heads, Levels, Sides, Steps, Width


@dataclass(frozen=True, kw_only=True)
class UNet3dConfig:
    """Sizes of a denoiser, in the official configuration's words.

    `in_channels` counts the mask channel of masked models; `attention_resolutions` are downsampling
    factors; `temporal_length` is the longest distance with a relative position of its own;
    `num_classes` is the number of noise level embeddings (None: no such input); `context_dim`
    selects the text model; with `max_stride` the network is told how far apart in the video the
    latents of a clip lie, 1 to so many (not in the paper). Blocks at `text_resolutions` and the
    middle one read text: all, as in the official code, unless given. `prediction` is what the last
    convolution gives: ε, as all official models do, or v or z_0, from which `UNet3d` makes ε with
    the ᾱ of its `timesteps`. `kernel_size_t` is odd: how many frames a convolution spans, all those
    of blocks, in and out. With `pooled_context` the mean of a context's tokens is added to the
    embedding of the timestep (not in the paper), so that every block knows what a prompt says of a
    whole clip.
    """

    in_channels: Width = 4
    out_channels: Width = 4
    model_channels: Width = 256
    num_res_blocks: Blocks = 3
    channel_mult: Levels = (1, 2, 3, 4)
    attention_resolutions: Sides = (8, 4, 2)
    num_heads: Heads = 4
    num_head_channels: Heads = -1
    temporal_length: Frames = 4
    use_scale_shift_norm: bool = True
    num_classes: Steps | None = None
    max_stride: Steps | None = None
    context_dim: Width | None = None
    text_resolutions: Sides | None = None
    pooled_context: bool = False
    use_temporal_transformer: bool = False
    transformer_depth: Blocks = 1
    norm_groups: Width = 32
    use_relative_position: bool = True
    conv_resample: bool = True
    resblock_updown: bool = False
    kernel_size_t: Blocks = 1
    nonlinearity_type: Literal["silu", "leaky_relu"] = "silu"
    prediction: Literal["eps", "v", "x0"] = "eps"
    timesteps: Steps = 1000

    def __post_init__(self) -> None:
        """Raise ValueError for a kernel in time that would change the length of clips."""
        if self.kernel_size_t % 2 == 0:
            raise ValueError(f"kernel_size_t is {self.kernel_size_t}, expected an odd number")
        if self.pooled_context and self.context_dim is None:
            raise ValueError("pooled_context needs a context_dim: there is no text to pool")
        if not set(self.text_resolutions or ()) <= set(self.attention_resolutions):
            raise ValueError(
                f"text_resolutions is {list(self.text_resolutions or ())}, expected some of "
                f"attention_resolutions, {list(self.attention_resolutions)}"
            )

    def activation(self) -> nn.Module:
        """Make the nonlinearity of residual blocks and embeddings."""
        return nn.SiLU() if self.nonlinearity_type == "silu" else nn.LeakyReLU()

    def heads(self, channels: int) -> int:
        """Return the number of attention heads at a width of `channels`, which they have to share.

        Raises ValueError or ZeroDivisionError where they cannot.
        """
        heads = self.num_heads
        if self.num_head_channels != -1:
            heads = channels // self.num_head_channels
        if heads < 1 or channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        return heads
