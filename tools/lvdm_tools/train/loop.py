"""The training loop: steps, log, checkpoints, samples; it knows nothing of losses or data."""

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, cast

import msgspec
import torch
from lightning_fabric import Fabric

from lvdm_engines.errors import NumericsError, TrainingError
from lvdm_rt.background import Stop, prefetch
from lvdm_tools.train import state
from lvdm_tools.train.config import Every
from lvdm_tools.train.learner import Batch, Learner

_AHEAD = 3  # batches that are made while others are trained on
_Whole = Annotated[int, msgspec.Meta(ge=0)]


class Task(Protocol):
    """What is trained: an autoencoder or a denoiser."""

    learners: Mapping[str, Learner]

    def batch(self, step: int) -> Batch:
        """Make the CPU tensors of a step; a pure function of the step."""
        ...

    def update(self, batch: Batch, step: int) -> dict[str, float]:
        """Train on a batch; return the losses by name, `loss` among them."""
        ...

    def preview(self, step: int, folder: Path) -> dict[str, float]:
        """Write sample sheets into `folder`; return numbers measured on them."""
        ...

    def export(self, folder: Path, step: int, *, if_missing: bool = False) -> None:
        """Write the model as `lvdm-export` reads it; `if_missing`: unless it is there already.

        What is there is known by its description, which another run's model may share.
        """
        ...


@dataclass(frozen=True)
class RunLength:
    """How far and how often, who is told, and what ends it earlier."""

    steps: int
    every: Every
    report: "state.Report"
    stop: threading.Event


class _Progress(msgspec.Struct, frozen=True):
    """How far a checkpoint is, and the window at that step."""

    step: _Whole
    sums: dict[str, float]
    count: _Whole


class Window:
    """Sums of the losses since the last log line; part of the checkpoint."""

    def __init__(self, sums: dict[str, float] | None = None, count: int = 0) -> None:
        self.sums = dict(sums or {})
        self.count = count

    def add(self, losses: Mapping[str, float]) -> None:
        """Count one step."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def flush(self) -> dict[str, float]:
        """Give the means and start again."""
        means = {name: value / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


def train(task: Task, workspace: state.Workspace, length: RunLength, fabric: Fabric) -> int:
    """Train up to `length.steps` from the last checkpoint; return the step reached.

    A run that is there already is left as it is, once its model has been written.
    Raises TrainingError: the loss is not finite, or the disk is full; the last checkpoint is kept.
    """
    first, window = _restore(task, workspace)
    if first > length.steps:
        raise TrainingError(
            f"{workspace.root} is already at step {first} of {length.steps}: ask for more --steps"
        )
    if fabric.is_global_zero:
        workspace.rewind_log(first)
        # a run may have been killed between its checkpoint and its model
        if first:
            task.export(workspace.model, first, if_missing=True)
    started, step = time.monotonic(), first
    made = (task.batch(number) for number in range(first, length.steps))
    for batch in prefetch(made, _AHEAD, Stop()):
        try:
            losses = task.update(fabric.to_device(batch), step)
        except NumericsError as err:
            raise _stopped(err, workspace) from err
        step += 1
        window.add(losses)
        last = step == length.steps or _stopping(length, fabric)
        if step % length.every.log == 0 or step == length.steps:
            rate = round((step - first) / (time.monotonic() - started), 3)
            means = _shared(window.flush(), fabric)
            record = {"step": step} | means | {"steps_per_second": rate}
            _log(workspace, length, fabric, record)
        if step % length.every.sample == 0 or step == length.steps:
            _sample(task, workspace, length, fabric, step)
        if step % length.every.checkpoint == 0 or last:
            _save(task, workspace, fabric, step, window)
        if last:
            break
    return step


def _stopped(reason: object, workspace: state.Workspace) -> TrainingError:
    if workspace.state.exists():
        saved = state.read_header(workspace.state)["step"]
        kept = f"the checkpoint of step {saved} is kept in {workspace.root}"
    else:
        kept = "there is no checkpoint yet"
    return TrainingError(f"{reason}: stopped; {kept}; start again with a lower learning rate")


def _stopping(length: RunLength, fabric: Fabric) -> bool:
    """Tell whether any process was asked to stop: all of them have to end after the same step."""
    if fabric.world_size == 1:
        return length.stop.is_set()
    asked = torch.tensor(float(length.stop.is_set()), device=fabric.device)
    return bool(cast("torch.Tensor", fabric.all_reduce(asked, reduce_op="sum")) > 0)


def _shared(means: dict[str, float], fabric: Fabric) -> dict[str, float]:
    """Average numbers over processes."""
    if fabric.world_size == 1:
        return means
    values = torch.tensor(list(means.values()), dtype=torch.float64).to(fabric.device)
    mean = cast("torch.Tensor", fabric.all_reduce(values, reduce_op="mean"))
    return dict(zip(means, mean.tolist(), strict=True))


def _restore(task: Task, workspace: state.Workspace) -> tuple[int, Window]:
    if not workspace.has_state:
        return 0, Window()
    tensors, meta = state.load(workspace.state)
    with state.reading(workspace.state):
        progress = msgspec.convert(meta, _Progress)
        for name, learner in task.learners.items():
            prefix = name + "/"
            learner.restore(
                {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}
            )
    return progress.step, Window(progress.sums, progress.count)


def _finite_tensors(task: Task, workspace: state.Workspace, step: int) -> dict[str, torch.Tensor]:
    tensors = {
        f"{name}/{key}": value
        for name, learner in task.learners.items()
        for key, value in learner.tensors().items()
    }
    for name, tensor in tensors.items():
        # a finite gradient can still be too long a step; all processes see the same and stop
        if not bool(torch.isfinite(tensor).all()):
            raise _stopped(f"after step {step} {name} holds NaN or infinity", workspace)
    return tensors


def _save(
    task: Task, workspace: state.Workspace, fabric: Fabric, step: int, window: Window
) -> None:
    tensors = _finite_tensors(task, workspace, step)
    if fabric.is_global_zero:
        meta = {"step": step, "sums": window.sums, "count": window.count}
        state.save(workspace.state, tensors, meta)
        task.export(workspace.model, step)
    fabric.barrier()


def _log(
    workspace: state.Workspace, length: RunLength, fabric: Fabric, record: dict[str, float]
) -> None:
    if fabric.is_global_zero:
        workspace.append_log(record)
        length.report(record | {"of": length.steps})


def _sample(
    task: Task, workspace: state.Workspace, length: RunLength, fabric: Fabric, step: int
) -> None:
    _finite_tensors(task, workspace, step)
    if fabric.is_global_zero:
        numbers = task.preview(step, workspace.root / "samples")
        if not all(math.isfinite(value) for value in numbers.values()):
            raise TrainingError(f"the samples of step {step} are not finite: {numbers}")
        if numbers:
            _log(workspace, length, fabric, {"step": step} | numbers)
        from lvdm_tools.train import sheets

        sheets.curves(workspace.root / "curves.png", workspace.history())
    fabric.barrier()
