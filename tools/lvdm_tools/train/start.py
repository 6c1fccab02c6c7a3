"""Putting a run together: config, data, device, folder."""

import hashlib
import json
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from lightning_fabric import Fabric

from lvdm_engines.errors import ConfigError, TrainingError, one_line, quoted
from lvdm_export.nets.unet3d import UNet3dConfig
from lvdm_tools.data.clip import ClipSpec, check_divisible
from lvdm_tools.data.source import open_both, open_source
from lvdm_tools.train import config as configs
from lvdm_tools.train import loop, state
from lvdm_tools.train import model_json as modelfile
from lvdm_tools.train.autoencoder.task import AutoencoderTask
from lvdm_tools.train.config import AutoencoderRun, DeviceConfig, DiffusionRun, DistillRun, Run
from lvdm_tools.train.diffusion import latents
from lvdm_tools.train.diffusion.distill import check_teacher, distillation
from lvdm_tools.train.diffusion.latents import Latents
from lvdm_tools.train.diffusion.sizes import check_initial, check_lengths, unet_config
from lvdm_tools.train.diffusion.task import DiffusionTask
from lvdm_tools.train.diffusion.text import Prompts, frozen_sha256, make_prompts
from lvdm_tools.train.model_json import FrozenDecoder, read_autoencoder, read_denoiser
from lvdm_tools.train.state import Workspace


@dataclass(frozen=True)
class TrainingRequest:
    """What the caller asks of one run."""

    run: Run
    data: str  # "synth" or a folder of videos
    out: Path
    report: "state.Report"
    resume: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


def run_training(request: TrainingRequest) -> int | None:
    """Train as asked; return the step reached, or None in a helper process of a parallel run.

    Raises LvdmError: any reason why the run cannot start or go on.
    """
    run = request.run
    fabric = _fabric(run.device)
    workspace = Workspace(request.out)
    with workspace.held() if fabric.is_global_zero else nullcontext():
        if isinstance(run, configs.AutoencoderRun):
            task = _autoencoder(request, run, fabric, workspace)
        else:
            task = _diffusion(request, run, fabric, workspace)
        length = loop.RunLength(run.steps, run.every, request.report, request.stop)
        reached = loop.train(task, workspace, length, fabric)
    return reached if fabric.is_global_zero else None


def with_overrides(
    run: Run,
    *,
    steps: int | None = None,
    autoencoder: Path | None = None,
    start_from: Path | None = None,
) -> Run:
    """Replace the length of a run, or the trained networks that it builds on.

    Raises ConfigError: no step at all.
    """
    if steps is not None and steps < 1:
        raise ConfigError(f"steps is {steps}, expected at least 1")
    changes: dict[str, Any] = {"steps": steps, "start_from": start_from}
    if isinstance(run, configs.DiffusionRun):
        changes["autoencoder"] = autoencoder
    asked = {name: value for name, value in changes.items() if value is not None}
    return msgspec.structs.replace(run, **asked)


def _fabric(device: DeviceConfig) -> Fabric:
    if device.threads is not None:
        torch.set_num_threads(device.threads)
    try:
        fabric = Fabric(
            accelerator=device.accelerator, devices=device.devices, precision=device.precision
        )
    except (ValueError, RuntimeError, TypeError, ImportError) as err:
        raise TrainingError(
            f"device {quoted(device.accelerator)} cannot be used: {one_line(str(err), 300)}"
        ) from err
    fabric.launch()
    return fabric


def _open(request: TrainingRequest, fabric: Fabric, workspace: Workspace, **extra: Any) -> None:
    identity = configs.to_plain(request.run) | extra
    if fabric.is_global_zero:
        workspace.open(identity, resume=request.resume)
    fabric.barrier()


def _begun_with(request: TrainingRequest, workspace: Workspace) -> dict[str, Any] | None:
    """Return what a run with a checkpoint recorded of its first weights, which it needs no more.

    Returns None where these weights have to be read.
    Raises TrainingError: the run was started from others than are asked for.
    """
    if not (request.resume and workspace.has_state):
        return None
    begun, asked = workspace.started_from(), request.run.start_from
    if asked is None or str(asked) == begun.get("start_from"):
        return begun
    digest = modelfile.digest(asked)
    if digest is None or digest != begun.get("start_from_sha256"):
        raise TrainingError(
            f"{workspace.root} was started from {begun.get('start_from') or 'no other run'}, and "
            f"start_from asks for other weights, {asked}: resume without it"
        )
    return begun


def _autoencoder(
    request: TrainingRequest, run: AutoencoderRun, fabric: Fabric, workspace: Workspace
) -> loop.Task:
    data = run.data
    spec = ClipSpec(data.frames, data.size, data.stride)
    source, held_out = open_both(request.data, spec, seed=run.seed)
    initial, extra = None, {"source": source.identity}
    begun = _begun_with(request, workspace)
    if begun is not None:
        extra |= begun
    elif run.start_from is not None:
        initial, _, extra["start_from_sha256"] = read_autoencoder(run.start_from)
        initial.requires_grad_(True)
    task = AutoencoderTask(run, source, held_out, fabric, initial)
    _open(request, fabric, workspace, **extra)
    return task


def _diffusion(
    request: TrainingRequest, run: DiffusionRun, fabric: Fabric, workspace: Workspace
) -> loop.Task:
    data = run.data
    network, record, digest = read_autoencoder(run.autoencoder)
    spec = ClipSpec(data.frames, data.size, data.stride)
    check_divisible(spec, network.config.downsample)
    config = unet_config(run, network.config.embed_dim, fabric.device)
    check_lengths(run, network.config.downsample)
    source = open_source(request.data, spec, seed=run.seed, captioned=run.text is not None)
    extra = {"source": source.identity, "autoencoder_sha256": digest}
    if run.text is not None and run.text.frozen is not None:
        extra["frozen_sha256"] = frozen_sha256(run.text.frozen)
    if isinstance(run, DistillRun):
        if run.start_from is None:
            raise ConfigError("start_from names no teacher; give it the run to learn from")
        distillation(run)
    initial, normal = None, None
    begun = _begun_with(request, workspace)
    extra |= begun or {}
    start = run.start_from if begun is None or isinstance(run, DistillRun) else None
    if start is not None:  # a student needs its teacher to the end
        initial, told, extra["start_from_sha256"] = read_denoiser(start)
        check_initial(initial, config, teacher=isinstance(run, DistillRun))
        if isinstance(run, DistillRun):
            normal = check_teacher(run, told, digest)
    _open(request, fabric, workspace, **extra)
    identity = [configs.to_plain(run)["data"], run.seed, source.identity, digest]
    identity += ["captioned"] if run.text is not None else []
    encoding = latents.Encoding(
        source,
        data,
        network.to(fabric.device),
        workspace.root / latents.FOLDER,
        hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        request.report,
        request.stop,
        run.start_from / latents.FOLDER if run.start_from is not None else None,
        captioned=run.text is not None,
    )
    if fabric.is_global_zero:
        latents.encode(encoding)
    fabric.barrier()
    window = record.decode_window or data.window // network.config.downsample[0]
    decoder = FrozenDecoder(network, window, digest)
    sequences = latents.read(encoding, normal)
    text = _text(run, config, sequences, fabric, workspace.root, start)
    return DiffusionTask(run, sequences, decoder, fabric, initial, text)


def _text(
    run: DiffusionRun,
    network: UNet3dConfig,
    data: Latents,
    fabric: Fabric,
    folder: Path,
    start: Path | None,
) -> Prompts | None:
    if run.text is None:
        return None
    torch.manual_seed(run.seed)
    width = network.context_dim or 0
    make = partial(make_prompts, run.text, width, data.captions, folder, start)
    made = make() if fabric.is_global_zero else None  # which writes what the others read
    fabric.barrier()
    return make() if made is None else made
