"""A request that was checked against the model: everything that can fail before the first call."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from lvdm_engines.contract import predicts_neighbours
from lvdm_engines.errors import OptionsError
from lvdm_engines.manifest import Manifest, ModelFacts
from lvdm_rt.decoding.autoencoder import check_frames
from lvdm_rt.decoding.preview import previewing
from lvdm_rt.long.plan import ClipPlan, needed_condition, plan
from lvdm_rt.long.prompting import unreached
from lvdm_rt.long.sampling import network_calls, schedule_of
from lvdm_rt.long.ways import denoiser, sampler_of, visited
from lvdm_rt.model import Model
from lvdm_rt.options import GenerateOptions, Settings, resolve
from lvdm_rt.progress import Counter, PreviewCallback, ProgressCallback
from lvdm_rt.text.prompts import Prompts, check_prompted

_log = logging.getLogger(__name__)

Frames = NDArray[np.uint8]
Asked = GenerateOptions | Settings | Sequence[GenerateOptions | Settings]
"""Options of videos that differ in their numbers alone, or of each video."""
Folders = str | Path | Sequence[Path] | None
"""A directory for finished latents, or one for each of several options."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One checked request.

    `condition` holds the frames that matter, whole latents of them if there are enough. `each`
    has the settings of every video where they were asked for one by one; `settings` then has what
    they share.
    """

    manifest: Manifest
    settings: Settings
    each: tuple[Settings, ...]
    plan: ClipPlan
    condition: Frames | None
    work: tuple[Path, ...]  # one for all videos, or one for each
    work_of_each: bool
    resume: bool
    restart: bool
    backend: str  # of each graph, with its precision

    def begin(
        self, progress: ProgressCallback | None, preview: PreviewCallback | None = None
    ) -> Counter:
        """Return a counter of all steps and frames; warn of what can be done but surprises.

        Raises PlanError for a preview that the model has no map for.
        """
        estimated = None if preview is None else previewing(self.manifest, preview)
        predict = self.manifest.model.predict
        neighbours = predicts_neighbours(self.manifest)
        if self.settings.mode == "autoregressive" and predict and not neighbours:
            _log.warning(
                "the predictor was trained on every %dth latent: in mode autoregressive things "
                "move that much faster",
                predict.stride,
            )
        self._tell_prompts()
        self._tell_clips()
        steps = network_calls(self.settings, self.manifest.model, self.plan)
        videos = self.settings.videos
        return Counter(videos * steps, videos * self.plan.frames, progress, estimated)

    def prompts(self, video: int) -> Prompts:
        """Return what a video shows, nothing where the model reads no text."""
        return (self.each[video] if self.each else self.settings).prompts or ()

    @property
    def different_prompts(self) -> set[Prompts]:
        """The prompts of all videos."""
        return {settings.prompts or () for settings in self.each or (self.settings,)}

    @property
    def texts(self) -> set[str]:
        """Every text that must be encoded."""
        told = {text for prompts in self.different_prompts for _, text in prompts}
        return told | {self.settings.negative_prompt or ""} if told else set()

    def _tell_prompts(self) -> None:
        for prompts in self.different_prompts:
            asked_for_none = [text for _, text in prompts] == [""]
            if not asked_for_none and any(not text.strip() for _, text in prompts):
                _log.warning("a prompt is empty: it asks for nothing in particular")
            for frame in unreached(prompts, self.plan, self.manifest.model.frames_per_latent):
                _log.warning(
                    "the prompt from frame %d on is never used: it comes after the last clip, or "
                    "another one begins in the same clip",
                    frame,
                )

    def _tell_clips(self) -> None:
        settings, schedule = self.settings, schedule_of(self.manifest.model)
        for stage, clips in self.plan.counts.items():
            _log.info(
                "%s: clips of a video %d, calls of %s for each %d, by %s",
                stage,
                clips,
                denoiser(settings, stage),
                len(visited(settings, schedule, stage)),
                sampler_of(settings, stage),
            )

    @property
    def identities(self) -> list[dict[str, Any]]:
        """What the latents in each work directory depend on."""
        if not self.work_of_each:
            return [self.identity]
        return [changed(self, settings=own, each=()).identity for own in self.each]

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that latents depend on, as JSON values."""
        settings = msgspec.to_builtins(self.settings)
        del settings["fps"], settings["fade"]
        if self.each:
            settings["each"] = [
                f"seed {own.seed}, video {own.first_video}, {json.dumps(own.prompts)}"
                for own in self.each
            ]
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
    text = [] if manifest.tokenizer is None else [manifest.tokenizer.sha256]
    return hashlib.sha256(msgspec.json.encode([manifest.model, files, *text])).hexdigest()


def frames_sha256(frames: Frames) -> str:
    """Return what tells condition videos apart."""
    return hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()


def needed_frames(model: ModelFacts, settings: Settings) -> int:
    """Return how many of the last frames of a condition video can matter."""
    return needed_condition(model, settings.mode, settings.overlap) * model.frames_per_latent


def prepare(
    model: Model,
    options: Asked,
    condition: Frames | None,
    work: Folders,
    *,
    resume: bool,
    restart: bool = False,
) -> Request:
    """Check a request and plan it; of several options each is one video.

    Raises OptionsError for bad options or frames, PlanError if the bundle cannot do it.
    """
    (settings, each), facts = _settled(options, model.manifest), model.facts
    for own in each or (settings,):
        check_prompted(own.prompts, model.manifest)
    model.session("decoder")
    folders = _folders(work, each)
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
        model.session(denoiser(settings, stage))
    return Request(
        manifest=model.manifest,
        settings=settings,
        each=each,
        plan=planned,
        condition=condition,
        work=folders,
        work_of_each=not isinstance(work, str | Path | None),
        resume=resume,
        restart=restart,
        backend=model.arithmetic,
    )


def _folders(work: Folders, each: tuple[Settings, ...]) -> tuple[Path, ...]:
    if isinstance(work, str | Path | None):
        return () if work is None else (Path(work),)
    if len(work) != len(each):
        raise OptionsError(
            f"got {len(work)} work directories for options of {len(each)} videos, expected one for "
            "each"
        )
    return tuple(work)


def _settled(options: Asked, manifest: Manifest) -> tuple[Settings, tuple[Settings, ...]]:
    """Return what all videos share, and the settings of each where they were asked one by one."""
    if isinstance(options, GenerateOptions | Settings):
        return resolve(options, manifest), ()
    each = tuple(resolve(own, manifest) for own in options)
    if not each:
        raise OptionsError("got options of no video, expected one at least")
    shared = {replace(own, seed=0, first_video=0, prompts=None) for own in each}
    if len(shared) > 1 or each[0].videos != 1:
        raise OptionsError(
            "got videos that differ in more than seed, first_video and prompts, or options of "
            "several videos; make one call for each kind"
        )
    return replace(each[0], videos=len(each), first_video=0), each


def _last_whole(frames: Frames, most: int, per_latent: int) -> Frames:
    """Return the last frames, at most `most`, as whole latents where there are enough."""
    frames = frames[-most:]
    return frames[len(frames) % per_latent :] if len(frames) >= per_latent else frames
