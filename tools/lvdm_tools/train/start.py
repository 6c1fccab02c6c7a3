"""Putting a run together: config, data, device, folder."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch
from lightning_fabric import Fabric
from lvdm_engines.errors import TrainingError

from lvdm_tools.train import config as configs
from lvdm_tools.train import loop, sources
from lvdm_tools.train.autoencoder import AutoencoderTask
from lvdm_tools.train.state import Workspace

if TYPE_CHECKING:
    from lvdm_tools.train.config import Device, Run
    from lvdm_tools.train.loop import Report

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the caller asks of one run."""

    run: Run
    data: str  # "synth" or a folder of videos
    out: Path
    report: Report
    resume: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


def start(request: Request) -> int:
    """Train as asked; return the step reached.

    Raises:
        LvdmError: any reason why the run cannot start or go on.

    """
    run = request.run
    fabric = _fabric(run.device)
    source = sources.open_source(request.data, run)
    workspace = Workspace(request.out)
    task = _task(run, source, fabric, workspace)
    identity = configs.to_plain(run) | {"source": source.name}
    if fabric.is_global_zero:
        workspace.open(identity, resume=request.resume)
    fabric.barrier()
    plan = loop.Plan(run.steps, run.every, request.report, request.stop)
    return loop.train(task, workspace, plan, fabric)


def with_overrides(run: Run, *, steps: int | None) -> Run:
    """Replace the length of a run."""
    if steps is None:
        return run
    if steps < 1:
        raise TrainingError(f"--steps is {steps}, expected at least 1")
    return msgspec.structs.replace(run, steps=steps)


def _fabric(device: Device) -> Fabric:
    if device.threads is not None:
        torch.set_num_threads(device.threads)
    try:
        fabric = Fabric(
            accelerator=device.accelerator, devices=device.devices, precision=device.precision
        )
    except (ValueError, RuntimeError) as err:
        raise TrainingError(f"device {device.accelerator!r} cannot be used: {err}") from err
    fabric.launch()
    return fabric


def _task(run: Run, source: sources.ClipSource, fabric: Fabric, workspace: Workspace) -> loop.Task:
    if isinstance(run, configs.AutoencoderRun):
        return AutoencoderTask(run, source, fabric)
    raise NotImplementedError(workspace)
