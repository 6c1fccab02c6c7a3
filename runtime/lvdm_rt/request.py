"""A request that was checked against the model: everything that can fail before the first call."""

import hashlib
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import PlanError
from lvdm_engines.manifest import Manifest, ModelFacts
from lvdm_rt.decoding.autoencoder import check_frames
from lvdm_rt.diffusion.noise import Stage
from lvdm_rt.long.plan import ClipPlan, needed_condition, plan
from lvdm_rt.long.sampling import network_calls
from lvdm_rt.model import Model
from lvdm_rt.options import GenerateOptions, Settings, resolve
from lvdm_rt.progress import Counter, ProgressCallback

_log = logging.getLogger(__name__)

Frames = NDArray[np.uint8]

DENOISER = {
    Stage.PREDICT: "predict",
    Stage.INFILL: "interpolate",
    Stage.SHORT: "short",
    Stage.REFINE: "interpolate",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One checked request.

    `condition` holds the frames that matter, whole latents of them if there are enough.
    """

    manifest: Manifest
    settings: Settings
    plan: ClipPlan
    condition: Frames | None
    work: Path | None
    resume: bool
    restart: bool
    backend: str  # of each graph, with its precision

    def begin(self, progress: ProgressCallback | None) -> Counter:
        """Return a counter of all steps and frames; warn of what can be done but surprises."""
        predict = self.manifest.model.predict
        if self.settings.mode == "autoregressive" and predict and predict.stride > 1:
            _log.warning(
                "the predictor was trained on every %dth latent: in mode autoregressive things "
                "move that much faster",
                predict.stride,
            )
        steps = network_calls(self.settings, self.manifest.model, self.plan)
        videos = self.settings.videos
        return Counter(videos * steps, videos * self.plan.frames, progress)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that latents depend on, as JSON values."""
        settings = msgspec.to_builtins(self.settings)
        del settings["fps"], settings["fade"]
        condition = self.condition
        return {
            **settings,
            "model": model_sha256(self.manifest),
            "condition": None if condition is None else frames_sha256(condition),
            "backend": self.backend,
            "version": version("lvdm-rt"),
        }


def model_sha256(manifest: Manifest) -> str:
    """Return what tells models apart: a hash of their facts and graphs."""
    files = {name: graph.files for name, graph in manifest.graphs.items()}
    return hashlib.sha256(msgspec.json.encode([manifest.model, files])).hexdigest()


def frames_sha256(frames: Frames) -> str:
    """Return what tells condition videos apart."""
    return hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()


def needed_frames(model: ModelFacts, settings: Settings) -> int:
    """Return how many of the last frames of a condition video can matter."""
    return needed_condition(model, settings.mode, settings.overlap) * model.frames_per_latent


def prepare(
    model: Model,
    options: GenerateOptions | Settings,
    condition: Frames | None,
    work: str | Path | None,
    *,
    resume: bool,
    restart: bool = False,
) -> Request:
    """Check a request and plan it.

    Raises OptionsError for bad options or frames, PlanError if the bundle cannot do it.
    """
    settings, facts = resolve(options, model.manifest), model.facts
    model.session("decoder")
    given = 0
    if condition is not None:
        check_frames(condition, facts.frame_size)
        model.session("encoder")
        condition = _last_whole(condition, needed_frames(facts, settings), facts.frames_per_latent)
        given = max(1, len(condition) // facts.frames_per_latent)
    planned = plan(
        settings.frames,
        facts,
        settings.mode,
        settings.overlap,
        given,
        refines=settings.refine > 0,
    )
    for stage in planned.counts:
        _refuse_text(model, DENOISER[stage])
    return Request(
        manifest=model.manifest,
        settings=settings,
        plan=planned,
        condition=condition,
        work=None if work is None else Path(work),
        resume=resume,
        restart=restart,
        backend=model.arithmetic,
    )


def _refuse_text(model: Model, graph: str) -> None:
    if any(spec.name == "context" for spec in model.session(graph).inputs):
        raise PlanError(
            f"{model.manifest.name}: graph {graph} needs a text prompt, which this version "
            "cannot encode; use a bundle without text"
        )


def _last_whole(frames: Frames, most: int, per_latent: int) -> Frames:
    """Return the last frames, at most `most`, as whole latents where there are enough."""
    frames = frames[-most:]
    return frames[len(frames) % per_latent :] if len(frames) >= per_latent else frames
