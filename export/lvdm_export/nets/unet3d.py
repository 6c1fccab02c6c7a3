"""The denoising UNet: unconditional, masked (prediction and infill) and text-conditioned.

Parameter names are the official ones, so checkpoints load both ways. Activations are (b·t, c, h, w)
from the first convolution to the last; norms, temporal attention and, where they span several
frames, convolutions look at time.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from lvdm_export.nets.attention_block import AttentionBlock
from lvdm_export.nets.layers import FoldedConv, zero
from lvdm_export.nets.norms import ClipNorm
from lvdm_export.nets.transformer import VideoTransformer
from lvdm_export.nets.unet_blocks import (
    BakedEmbedding,
    ClipUpsample,
    Downsample,
    Embedding,
    NumberEmbedding,
    ResBlock,
    Velocity,
    conv,
    timestep_embedding,
)
from lvdm_export.nets.unet_config import UNet3dConfig

__all__ = ["UNet3d", "UNet3dConfig"]


class _Stage(nn.ModuleList):
    """Layers of one entry of `input_blocks` or `output_blocks`, each given what it needs."""

    def forward(self, x: Tensor, emb: Tensor, t: int, context: Tensor | None) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb, t)
            elif isinstance(layer, VideoTransformer):
                x = layer(x, t, context)
            else:
                x = layer(x, t)
        return x


class UNet3d(nn.Module):
    """ε(x, timestep) with optional mask, noise level and text context (paper section 3)."""

    def __init__(self, config: UNet3dConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.model_channels
        self.time_embed = Embedding(
            nn.Linear(dim, 4 * dim), config.activation(), nn.Linear(4 * dim, 4 * dim)
        )
        if config.num_classes is not None:
            self.label_emb = NumberEmbedding(config.num_classes, 4 * dim)
        if config.max_stride is not None:
            self.stride_emb = NumberEmbedding(config.max_stride, 4 * dim)
        if config.pooled_context and config.context_dim is not None:
            self.text_emb = Embedding(nn.Linear(config.context_dim, 4 * dim))
        widths = self._build_encoder(config)
        top = widths[-1]
        self.middle_block = _Stage(
            [ResBlock(top, top, config), self._attention(top), ResBlock(top, top, config)]
        )
        self._build_decoder(config, widths)
        self.out = nn.Sequential(
            ClipNorm(config.norm_groups, dim),
            config.activation(),
            zero(conv(config, dim, config.out_channels)),
        )
        if config.prediction != "eps":
            self.velocity = Velocity(config.timesteps, of_data=config.prediction == "x0")

    def _attention(self, channels: int, factor: int | None = None) -> nn.Module:
        """Make the attention at a downsampling factor, or of the middle block."""
        config, some = self.config, self.config.text_resolutions
        reads = config.use_temporal_transformer and (some is None or factor in (None, *some))
        if not reads or config.context_dim is None:
            return AttentionBlock(
                channels,
                config.heads(channels),
                config.temporal_length,
                config.norm_groups,
                relative=config.use_relative_position,
            )
        return VideoTransformer(
            channels,
            config.heads(channels),
            context_dim=config.context_dim,
            depth=config.transformer_depth,
            temporal_length=config.temporal_length,
            norm_groups=config.norm_groups,
            relative=config.use_relative_position,
        )

    def _resample(self, channels: int, way: Literal["up", "down"]) -> nn.Module:
        if self.config.resblock_updown:
            return ResBlock(channels, channels, self.config, way)
        return (ClipUpsample if way == "up" else Downsample)(channels, self.config)

    def _build_encoder(self, config: UNet3dConfig) -> list[int]:
        """Build `input_blocks`; returns the channels of every skip connection."""
        ch, factor = config.model_channels, 1
        self.input_blocks = nn.ModuleList([_Stage([conv(config, config.in_channels, ch)])])
        widths = [ch]
        for level, mult in enumerate(config.channel_mult):
            if level > 0:
                self.input_blocks.append(_Stage([self._resample(ch, "down")]))
                widths.append(ch)
                factor *= 2
            for _ in range(config.num_res_blocks):
                stage = _Stage([ResBlock(ch, mult * config.model_channels, config)])
                ch = mult * config.model_channels
                if factor in config.attention_resolutions:
                    stage.append(self._attention(ch, factor))
                self.input_blocks.append(stage)
                widths.append(ch)
        return widths

    def _build_decoder(self, config: UNet3dConfig, widths: list[int]) -> None:
        widths = list(widths)
        ch, factor = widths[-1], 2 ** (len(config.channel_mult) - 1)
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for i in range(config.num_res_blocks + 1):
                stage = _Stage([ResBlock(ch + widths.pop(), mult * config.model_channels, config)])
                ch = mult * config.model_channels
                if factor in config.attention_resolutions:
                    stage.append(self._attention(ch, factor))
                if level > 0 and i == config.num_res_blocks:
                    stage.append(self._resample(ch, "up"))
                    factor //= 2
                self.output_blocks.append(stage)

    def embed(
        self,
        timesteps: Tensor,
        noise_level: Tensor | None,
        stride: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Embed timesteps, noise levels and strides (b) as (b, 4·model_channels); −1 adds zero.

        The mean of a context (b, l, d) is added where it is pooled. Once baked, what blocks make of
        it (b, all) is returned.
        """
        text = None
        if self.config.pooled_context and context is not None:
            text = self.text_emb(context.float().mean(dim=1))
        if hasattr(self, "baked"):
            return cast("Tensor", self.baked(timesteps, noise_level, stride, text))
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels))
        if noise_level is not None:
            given = (noise_level >= 0).to(emb.dtype)[:, None]
            emb = emb + self.label_emb(noise_level.clamp(min=0)) * given
        if stride is not None:
            emb = emb + self.stride_emb((stride - 1).clamp(0, self.stride_emb.num_embeddings - 1))
        if text is not None:
            emb = emb + text
        return cast("Tensor", emb)

    def bake(self) -> None:
        """Keep embeddings as tables, and what blocks make of them as one product, for export."""
        every = torch.arange(self.config.timesteps)
        with torch.no_grad():
            times = self.time_embed(timestep_embedding(every, self.config.model_channels))
        rows = [
            getattr(self, name).weight.detach() if hasattr(self, name) else None
            for name in ("label_emb", "stride_emb")
        ]
        learnt = sum(weight.numel() for weight in self.time_embed.parameters())
        self.baked = BakedEmbedding(times, *rows, more=times.numel() - learnt)
        self.baked.join([layer for layer in self.modules() if isinstance(layer, ResBlock)])
        for name in ("time_embed", "label_emb", "stride_emb"):
            if hasattr(self, name):
                delattr(self, name)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        mask: Tensor | None = None,
        noise_level: Tensor | None = None,
        context: Tensor | None = None,
        stride: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise in x.

        x (b, c, t, h, w) without the mask channel; timesteps int64 (b); mask (b, t), 1 = given;
        noise_level int64 (b), −1 = none; context (b, l, d); stride int64 (b). Returns float32 eps
        (b, c, t, h, w).
        """
        b, c, t, height, width = x.shape
        h = x.transpose(1, 2)  # (b, t, c, h, w)
        if mask is not None:
            h = torch.cat(
                [h, mask.to(x.dtype)[:, :, None, None, None].expand(b, t, 1, height, width)], dim=2
            )
            c += 1
        h = h.reshape(b * t, c, height, width).to(cast("FoldedConv", self.out[2]).weight.dtype)
        context = None if context is None else context.to(h.dtype)
        emb = self.embed(timesteps, noise_level, stride, context)
        skips = []
        for stage in self.input_blocks:
            h = stage(h, emb, t, context)
            skips.append(h)
        h = self.middle_block(h, emb, t, context)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, t, context)
        norm, act, last = self.out
        out = cast("Tensor", last(act(norm(h, t)), t)).float()
        out = out.reshape(b, t, -1, height, width).transpose(1, 2)
        if self.config.prediction != "eps":
            return cast("Tensor", self.velocity(out, x, timesteps))
        return out
