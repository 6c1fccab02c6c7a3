"""`lvdm-tools convert-i3d`: the TorchScript network of FVD as ONNX, so that it needs no torch."""

import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from torch import Tensor, nn

from lvdm_engines.atomic import whole_path
from lvdm_engines.command_line import tell
from lvdm_engines.completion import PATH
from lvdm_engines.errors import ConfigError, OptionsError
from lvdm_tools.outputs import check_free
from lvdm_tools.quality.i3d import FRAMES, INPUT, LOGITS, OUTPUT, SIDE, WHERE, open_i3d

_OPSET = 17
_TOLERANCE = 1e-3  # of the largest logit


@click.command("convert-i3d")
@click.argument("source", type=click.Path(path_type=Path), shell_complete=PATH)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="The .onnx file to write."
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def command(source: Path, out: Path, *, force: bool) -> None:
    """Convert SOURCE, the TorchScript network of FVD, to ONNX, and compare both on noise."""
    if out.suffix != ".onnx":
        raise OptionsError(f"got {out}, expected a name that ends in .onnx")
    check_free([out], force=force)
    error = to_onnx(source, out)
    tell(f"{out}: differs from {source} by {error:.1e} of the largest logit")


def to_onnx(source: Path, target: Path) -> float:
    """Write the ONNX file, whole or not at all; returns how far it is from the source.

    Both see noise, which the source resizes by itself; the error is in shares of the largest logit.
    Raises ConfigError: not that network, or the graph gives something else.
    """
    noise = np.random.default_rng(0).integers(0, 256, (2, FRAMES, 96, 128, 3), np.uint8)
    wanted = open_i3d(source, gpu=False)(noise)
    with whole_path(target) as part:
        written = part.with_suffix(".onnx")
        try:
            _export(source, written)
            got = open_i3d(written, gpu=False)(noise)
            written.replace(part)
        finally:
            written.unlink(missing_ok=True)
        error = float(np.abs(got - wanted).max() / np.abs(wanted).max())
        if not error < _TOLERANCE:
            raise ConfigError(
                f"{source}: converted, it differs by {error:.2g} of the largest logit, expected "
                f"less than {_TOLERANCE:g}; give the TorchScript file itself"
            )
    return error


class _Prepared(nn.Module):
    """The network as it is called with what is resized and scaled already."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits (b, 400) of (b, 3, 16, 224, 224)."""
        logits: Tensor = self.network(clips, rescale=False, resize=False, return_features=True)
        return logits


def _export(source: Path, target: Path) -> None:
    """Write the graph; of torch's two exporters only the old one takes TorchScript."""
    example = torch.zeros(1, 3, FRAMES, SIDE, SIDE)
    jit: Any = torch.jit
    with warnings.catch_warnings(action="ignore"):  # that it is old
        network = jit.load(str(source), map_location="cpu").eval()
        traced = jit.trace(_Prepared(network), example, check_trace=False)
        try:
            torch.onnx.export(
                traced,
                (example,),
                str(target),
                dynamo=False,
                opset_version=_OPSET,
                input_names=[INPUT.name],
                output_names=[OUTPUT.name],
                dynamic_axes={INPUT.name: {0: "b"}, OUTPUT.name: {0: "b"}},
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as err:
            raise ConfigError(f"{source}: it cannot be converted ({err}); {WHERE}") from err
    _declare_logits(target)


def _declare_logits(target: Path) -> None:
    """State the shape of what the graph gives, where the exporter could not tell it."""
    model = onnx.load(target)
    shape = model.graph.output[0].type.tensor_type.shape
    del shape.dim[:]
    shape.dim.add().dim_param = "b"
    shape.dim.add().dim_value = LOGITS
    onnx.save(model, target)
