"""Layers shared by the networks, written so that the exported graphs are lean.

Owns the numerics that checkpoints depend on (padded convolutions) and the two layout
decisions: 1×3×3 convolutions run as 2D convolutions on (b·t, c, h, w), and transposed 3D
convolutions run as one ordinary convolution per output phase. Knows nothing of whole networks,
files or ONNX.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name every torch reader expects

LayerT = TypeVar("LayerT", bound=nn.Module)


class FoldedConv(nn.Conv3d):
    """A 1×k×k convolution with the official 5-D weight, run as a 2D convolution on (b·t, c, h, w).

    Folding time into the batch is what lets every runtime use its 2D kernels (1.2 to 2 times faster
    on a CPU). With `kernel_t` above 1 it is a 3D convolution, zero-padded in time.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        *,
        kernel_t: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            (kernel_t, kernel, kernel),
            stride=(1, stride, stride),
            padding=(kernel_t // 2, padding, padding),
        )

    def forward(self, x: Tensor, t: int = 1) -> Tensor:
        """Convolve x (b·t, c, h, w) frame by frame; a kernel of several frames slides over t."""
        if self.kernel_size[0] > 1:
            y = super().forward(x.reshape(-1, t, *x.shape[1:]).transpose(1, 2)).transpose(1, 2)
            return y.reshape(-1, *y.shape[2:])
        weight = self.weight if self.weight.dim() == 4 else self.weight.squeeze(2)
        stride, padding = self.stride[1], cast("int", self.padding[1])
        return F.conv2d(x, weight, self.bias, stride=stride, padding=padding)

    def bake(self) -> None:
        """Store the weight as 4-D, so that an exported graph holds it without a reshape."""
        if self.weight.dim() == 5 and self.kernel_size[0] == 1:
            self.weight = nn.Parameter(self.weight.detach().squeeze(2), requires_grad=False)


class TokenConv(nn.Conv1d):
    """A 1×1 convolution with the official 3-D weight, applied to tokens with channels last."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Project x (…, c)."""
        weight = self.weight if self.weight.dim() == 2 else self.weight.squeeze(-1)
        return F.linear(x, weight, self.bias)

    def bake(self) -> None:
        """Store the weight as 2-D, so that an exported graph holds it without a reshape."""
        if self.weight.dim() == 3:
            self.weight = nn.Parameter(self.weight.detach().squeeze(-1), requires_grad=False)


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a convolution that keeps the size."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) → (n, c, 2h, 2w)."""
        return cast("Tensor", self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))


def _padding(kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Return k − s per axis, larger half in front, in the order of `F.pad` (last axis first)."""
    padding: list[int] = []
    for total in (k - s for k, s in reversed(list(zip(kernel, stride, strict=True)))):
        padding += [total // 2 + total % 2, total // 2]
    return padding


class PaddedConv3d(nn.Module):
    """3D convolution that keeps size/stride, padded in space and time; `mode` is of `F.pad`.

    Replicate padding makes the autoencoder shift-equivariant in time (paper section 3.1). The
    official module registers the weight under two names, `X.weight` and `X.conv.weight`; so does
    this one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: tuple[int, int, int] = (1, 1, 1),
        mode: str = "replicate",
    ) -> None:
        super().__init__()
        self.mode = mode
        self.pad_input = _padding((kernel,) * 3, stride)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride=stride)
        self.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (b, c, t, h, w)."""
        if any(self.pad_input):
            x = F.pad(x, self.pad_input, mode=self.mode)
        return cast("Tensor", self.conv(x))


class PaddedConvTranspose3d(nn.Module):
    """Transposed 3D convolution of kernel 4 with replicate padding, run phase by phase.

    A transposed convolution of stride 2 and kernel 4 computes every output phase (even, odd, per
    axis) from two neighbouring inputs. Written as a kernel-2 convolution per phase it gives the
    same numbers without the column buffer of C_out·k³ values per input that runtimes allocate for
    ConvTranspose (4.9 GiB at 256×256×16).
    """

    kernel = 4

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.stride = stride
        self.pad_input = _padding((self.kernel,) * 3, stride)
        # The official module crops k − 1 on every side; here that crop is part of the phase
        # arithmetic.
        self.convt = nn.ConvTranspose3d(
            in_channels, out_channels, self.kernel, stride=stride, padding=self.kernel - 1
        )
        self.phases: nn.ParameterList | None = None

    def phase_kernels(self) -> list[Tensor]:
        """Return the kernel (c_out, c_in, k, k, k) of every phase, row-major in (t, h, w).

        With stride 2 and the crop of 3, output 2m reads inputs m, m+1 through taps 3, 1 and output
        2m+1 reads m+1, m+2 through taps 2, 0. With stride 1 the kernel is merely reversed.
        """
        if self.phases is not None:
            return list(self.phases)
        weight = self.convt.weight.transpose(0, 1).flip(2, 3, 4)  # taps reversed: 0,2 even, 1,3 odd
        kernels = []
        for phase in product(*(range(s) for s in self.stride)):
            taps = tuple(slice(p, None, s) for p, s in zip(phase, self.stride, strict=True))
            kernels.append(weight[(slice(None), slice(None), *taps)])
        return kernels

    def forward(self, x: Tensor) -> Tensor:
        """Upsample x (b, c, t, h, w) by the stride."""
        size = x.shape[2:]
        x = F.pad(x, self.pad_input, mode="replicate")
        parts = []
        for phase, kernel in zip(
            product(*(range(s) for s in self.stride)), self.phase_kernels(), strict=True
        ):
            window = x
            for axis, (p, s, n) in enumerate(zip(phase, self.stride, size, strict=True)):
                if s == 2:
                    window = window.narrow(axis + 2, p, n + 1)
            parts.append(F.conv3d(window, kernel, self.convt.bias))
        return self._interleave(parts)

    def _interleave(self, parts: list[Tensor]) -> Tensor:
        for axis in (4, 3, 2):  # the last axis varies fastest in `parts`
            if self.stride[axis - 2] == 2:
                parts = [
                    torch.stack(pair, axis + 1).flatten(axis, axis + 1)
                    for pair in zip(parts[::2], parts[1::2], strict=True)
                ]
        return parts[0]

    def bake(self) -> None:
        """Store the phase kernels, so that an exported graph holds them without slicing."""
        kernels = [kernel.detach().contiguous() for kernel in self.phase_kernels()]
        self.phases = nn.ParameterList(nn.Parameter(k, requires_grad=False) for k in kernels)
        self.convt.weight.requires_grad_(False)


@runtime_checkable
class _Baked(Protocol):
    def bake(self) -> None: ...


def bake(module: nn.Module) -> nn.Module:
    """Store every weight of `module` in the layout its forward pass uses; returns `module`.

    For export only: afterwards the state dict no longer has the official shapes.
    """
    for layer in list(module.modules()):
        if isinstance(layer, _Baked):
            layer.bake()
    return module


def unit_gain(layer: LayerT) -> LayerT:
    """Draw the weights of a padded convolution so that outputs keep the inputs' variance.

    PyTorch's default shrinks a transposed convolution's output twentyfold, which buries a trunk
    without norms, such as the autoencoder's, under its residual branches.
    """
    if isinstance(layer, PaddedConvTranspose3d):
        weight, bias = layer.convt.weight, layer.convt.bias
        inputs = weight.shape[0] * math.prod(layer.kernel // s for s in layer.stride)
    elif isinstance(layer, PaddedConv3d):
        weight, bias = layer.conv.weight, layer.conv.bias
        inputs = weight[0].numel()
    else:
        raise TypeError(f"expected a padded convolution, got {type(layer).__name__}")
    nn.init.normal_(weight, std=inputs**-0.5)
    nn.init.zeros_(cast("Tensor", bias))
    return layer


def zero(layer: LayerT) -> LayerT:
    """Set all parameters of `layer` to zero in place, so that its branch starts silent."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def to_half(module: nn.Module) -> nn.Module:
    """Cast `module` to float16 in place, but for layers marked `keep_float32`; returns `module`."""
    islands = [layer for layer in module.modules() if getattr(layer, "keep_float32", False)]
    parameters = [(tensor, tensor.data) for layer in islands for tensor in layer.parameters()]
    buffers = [(layer, dict(layer.named_buffers(recurse=False))) for layer in islands]
    module.half()
    for tensor, data in parameters:
        tensor.data = data
    for layer, tensors in buffers:
        for name, buffer in tensors.items():
            setattr(layer, name, buffer)  # `half` made new ones
    return module
