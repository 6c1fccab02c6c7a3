"""The flags of `build-engines`.

Knows click; which exclude each other is said where they are used.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lvdm_engines.completion import BUNDLE, PATH
from lvdm_engines.defaults import SAMPLER_NAMES
from lvdm_engines.ranges import BatchRange, NumberRange, WholeRange

RUN_AS_THEY_ARE = ("cpu", "openvino", "cuda")  # backends that need no plans
_FILE = click.Path(path_type=Path)
_FILES: Any = (_FILE, _FILE)


def _pair(name: str, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        name, nargs=2, type=_FILES, metavar="CFG CKPT", shell_complete=PATH, help=what
    )


_FLAGS = (
    _pair("--predict", "Keyframe predictor."),
    _pair("--interpolate", "Infill network."),
    _pair("--short", "Single clips."),
    _pair("--text", "Text-to-video denoiser, as `short`."),
    _pair("--distilled", "A student of all these that learnt to take few calls."),
    click.option(
        "--autoencoder",
        type=_FILE,
        metavar="CKPT",
        help="Default: the one inside the first denoiser's checkpoint.",
    ),
    click.option(
        "--text-encoder",
        type=_FILE,
        metavar="DIR",
        shell_complete=PATH,
        help="Hugging Face's folder of a CLIP model. Default: the one inside the checkpoint.",
    ),
    click.option(
        "--tokenizer",
        type=_FILE,
        metavar="FILE",
        shell_complete=PATH,
        help="Its tokenizer.json. Default: the one in DIR or beside CFG.",
    ),
    click.option("--sha256", multiple=True, metavar="HEX", help="Take no other CKPT; repeatable."),
    click.option("--out", type=_FILE, metavar="BUNDLE", help="What to write."),
    click.option(
        "--bundle",
        metavar="BUNDLE",
        shell_complete=BUNDLE,
        help="Instead of all above: compile this bundle.",
    ),
    click.option(
        "--backend",
        type=click.Choice([*RUN_AS_THEY_ARE, "tensorrt", "tensorrt-rtx"]),
        default="cpu",
        show_default=True,
        help="Also compile for this one; cpu, openvino and cuda run the ONNX files as they are.",
    ),
    click.option(
        "--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True
    ),
    click.option(
        "--batch",
        type=BatchRange(),
        metavar="MIN:OPT:MAX",
        help="Clips per call that plans are made for.",
    ),
    click.option(
        "--pixel-batch",
        type=BatchRange(),
        metavar="MIN:OPT:MAX",
        help="The same of encoder and decoder.",
    ),
    click.option("--level", type=WholeRange(0, 5), help="How long to search for kernels."),
    click.option("--tf32/--no-tf32", default=True, help="May float32 parts round products?"),
    click.option(
        "--refit",
        is_flag=True,
        help="Weights of plans can be exchanged later; verify such plans, see docs.",
    ),
    click.option(
        "--refit-from",
        metavar="BUNDLE",
        shell_complete=BUNDLE,
        help="Exchange weights in this one's plans; compile nothing.",
    ),
    click.option("--version-compatible", is_flag=True, help="Plans outlive library updates."),
    click.option(
        "--target", "targets", multiple=True, metavar="CC", help="Compute capability, such as 8.6."
    ),
    click.option(
        "--weights",
        type=click.Choice(["fp32", "fp16"]),
        default="fp32",
        show_default=True,
        help="fp16: round and store weights so, for files half the size; computing stays as above.",
    ),
    click.option(
        "--ema/--no-ema", default=True, help="Averaged or plain weights. Default: averaged."
    ),
    click.option("--name", help="Default: the name of the directory."),
    click.option("--fps", type=NumberRange(0.1, 1000), default=8.0, show_default=True),
    click.option("--sampler", type=click.Choice(SAMPLER_NAMES), help="The bundle's default."),
    click.option("--steps", type=WholeRange(1), metavar="N", help="The bundle's default."),
    click.option(
        "--guidance", type=NumberRange(0, 1000), metavar="W", help="The bundle's default."
    ),
    click.option(
        "--text-guidance", type=NumberRange(0, 1000), metavar="W", help="The bundle's default."
    ),
    click.option("--eta", type=NumberRange(0, 1), help="The bundle's default noise of DDIM."),
    click.option("--refine", type=WholeRange(0, 1000), metavar="N", help="The bundle's default."),
    click.option(
        "--noise-level",
        type=WholeRange(-1, 1 << 20),
        metavar="S",
        help="The bundle's default perturbation of conditions; -1: none.",
    ),
    click.option(
        "--decode-window",
        type=WholeRange(1, 4096),
        metavar="LATENTS",
        help="Default: 16 frames' worth.",
    ),
    click.option(
        "--overlap",
        type=WholeRange(0, 2048),
        metavar="N",
        help="The bundle's default: latents that decode windows share. Default: half a window.",
    ),
    click.option("--force", is_flag=True, help="Replace an existing bundle."),
    click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
)


def build_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all flags of `build-engines`."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command
