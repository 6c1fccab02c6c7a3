"""The trained model as `lvdm-export build-engines` reads it: model.safetensors and model.json."""

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lvdm_engines.atomic import whole_file
from lvdm_engines.bundle import file_sha256
from lvdm_engines.errors import CheckpointError, ExportError
from lvdm_engines.manifest import TOKENIZER, InterpolateFacts, PredictFacts, ShortFacts
from lvdm_export.checkpoint.keys import open_checkpoint
from lvdm_export.checkpoint.weights import check_fit, load_autoencoder, load_denoiser
from lvdm_export.config.model_json import ModelRecord, read_record, save_model
from lvdm_export.nets.autoencoder3d import Autoencoder3d, Autoencoder3dConfig
from lvdm_export.nets.text import TextEncoderConfig
from lvdm_export.nets.unet3d import UNet3d, UNet3dConfig
from lvdm_tools.train import state
from lvdm_tools.train.config import AutoencoderRun, ClipKind, DiffusionRun, DistillRun, Run

_WEIGHTS = "model.safetensors"
_AGAIN = "train it again, or name another"


@dataclass(frozen=True, eq=False)
class FrozenDecoder:
    """The trained autoencoder and the window of latents it decodes at a time."""

    autoencoder: Autoencoder3d
    window: int
    sha256: str


def autoencoder(run: AutoencoderRun, network: Autoencoder3dConfig, step: int) -> ModelRecord:
    """Describe an autoencoder; latent statistics are measured when a denoiser is trained."""
    trained = run.data.frames // network.downsample[0]
    return ModelRecord(
        kind="autoencoder3d",
        config=dataclasses.asdict(network),
        frame_size=run.data.size,
        latent_size=_latent_size(run.data.size, network),
        decode_window=trained if run.decode_window is None else run.decode_window,
        ema=run.ema is not None,
        provenance=_provenance(run, step) | {"whitened": run.whiten},
    )


def denoiser(
    run: DiffusionRun,
    network: UNet3dConfig,
    decoder: FrozenDecoder,
    step: int,
    *,
    scale: float,
    shift: float,
    text: TextEncoderConfig | None = None,
) -> ModelRecord:
    """Describe a denoiser of latents normalised as scale·(mean + shift), and its text encoder.

    Where a kind of clip is listed twice, the one of the largest stride counts, or the first.
    """
    first: dict[str, ClipKind] = {}
    for kind in sorted(run.clips, key=lambda kind: -kind.stride):
        if kind.kind != "unconditional" or kind.stride == 1:
            first.setdefault(kind.kind, kind)
    predict, infill, short = (first.get(k) for k in ("predict", "interpolate", "unconditional"))
    return ModelRecord(
        kind="unet3d",
        config=dataclasses.asdict(network),
        frame_size=run.data.size,
        latent_size=_latent_size(run.data.size, decoder.autoencoder.config),
        scale=scale,
        shift=shift,
        decode_window=decoder.window,
        schedule=run.schedule,
        predict=PredictFacts(predict.latents, predict.condition, predict.stride)
        if predict
        else None,
        interpolate=InterpolateFacts(infill.latents) if infill else None,
        short=ShortFacts(short.latents) if short else None,
        noise_levels=run.noise_levels if network.num_classes is not None else None,
        context_tokens=None if text is None else text.tokens,
        calls=run.calls if isinstance(run, DistillRun) else None,
        text_encoder=text,
        ema=run.ema is not None,
        provenance=_provenance(run, step) | {"autoencoder_sha256": decoder.sha256},
    )


def _latent_size(size: tuple[int, int], network: Autoencoder3dConfig) -> tuple[int, int]:
    _, down_h, down_w = network.downsample
    return size[0] // down_h, size[1] // down_w


def _provenance(run: Run, step: int) -> dict[str, Any]:
    return {
        "name": run.name,
        "step": step,
        "seed": run.seed,
        "lvdm_rt": version("lvdm-rt"),
        "torch": str(torch.__version__),  # a subclass of str that JSON writers refuse
    }


def write(
    folder: Path,
    network: nn.Module | Mapping[str, Tensor],
    record: ModelRecord,
    tokenizer: bytes | None = None,
) -> None:
    """Write weights and description, and the tokenizer first; each whole or not at all.

    Raises TrainingError: the disk is full or the folder cannot be written.
    """
    try:
        _clear(folder)
        if tokenizer is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(folder / TOKENIZER) as file:
                file.write(tokenizer)
        save_model(folder, record, network)
    except (ExportError, SafetensorError, OSError) as err:
        with suppress(OSError):
            _clear(folder)
        raise state.write_error(err, folder / _WEIGHTS) from err


def _clear(folder: Path) -> None:
    for draft in folder.glob(".model.*"):  # left by a kill or a full disk
        draft.unlink()


def holds(folder: Path, record: ModelRecord) -> bool:
    """Tell whether the whole model of this description, step included, is in `folder` already."""
    try:
        with state.reading(folder):
            there = read_record(folder / "model.json")
            check_fit(there.network_config(), open_checkpoint(folder / _WEIGHTS), ema=False)
            # tuples became lists
            return msgspec.json.encode(there) == msgspec.json.encode(record)
    except CheckpointError:
        return False


def read_autoencoder(path: Path) -> tuple[Autoencoder3d, ModelRecord, str]:
    """Load a trained autoencoder from its folder, or from the folder of its run.

    Returns network, description and the sha256 of the weights.
    Raises LvdmError: missing, damaged, or another kind of model.
    """
    with state.reading(path, _AGAIN):
        weights, record = _find(path, "autoencoder", "autoencoder3d")
        config = cast("Autoencoder3dConfig", record.network_config())
        network = load_autoencoder(config, open_checkpoint(weights))
        return cast("Autoencoder3d", network), record, file_sha256(weights)


def read_denoiser(path: Path) -> tuple[UNet3d, ModelRecord, str]:
    """Load a trained denoiser from its folder, or from the folder of its run.

    Returns network, description and the sha256 of the weights.
    Raises LvdmError: missing, damaged, or another kind of model.
    """
    with state.reading(path, _AGAIN):
        weights, record = _find(path, "denoiser", "unet3d")
        config = cast("UNet3dConfig", record.network_config())
        network = load_denoiser(config, open_checkpoint(weights), ema=False)
        return network, record, file_sha256(weights)


def digest(path: Path) -> str | None:
    """Return the sha256 of the weights in a model's folder or its run's; None without any."""
    weights = _weights(path)
    return file_sha256(weights) if weights.is_file() else None


def _weights(path: Path) -> Path:
    folder = path / "model" if (path / "model").is_dir() else path
    return folder / _WEIGHTS


def _find(path: Path, what: str, kind: str) -> tuple[Path, ModelRecord]:
    weights = _weights(path)
    if not weights.exists():
        raise CheckpointError(
            f"{path} holds no trained {what} (no {weights.name}): train one first and name its "
            "folder"
        )
    record = read_record(weights.with_name("model.json"))
    if record.kind != kind:
        raise CheckpointError(f"{path} is a model of kind {record.kind}, expected {kind}")
    return weights, record
