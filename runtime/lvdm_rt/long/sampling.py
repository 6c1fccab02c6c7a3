"""The sampling half of the pipeline: batches of clips in, latents of each video out, in order.

Knows networks, noise and the work directory; nothing of pixels or threads.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import NumericsError
from lvdm_engines.manifest import ModelFacts
from lvdm_rt.diffusion.condition import overwrite, perturb, place, plan_mask
from lvdm_rt.diffusion.guidance import guided
from lvdm_rt.diffusion.noise import FIRST_STEP, PERTURB, START, NoiseSource, Site, Stage, draw_rows
from lvdm_rt.diffusion.sampler import SAMPLERS, Process, nothing_given
from lvdm_rt.diffusion.schedule import Schedule, make_schedule
from lvdm_rt.long.network import Network, checked, estimating, name_bad
from lvdm_rt.long.plan import ClipBatch, ClipPlan, batches
from lvdm_rt.long.prompting import Prompting
from lvdm_rt.long.videos import (
    ClipWindow,
    ClipWork,
    LatentChunk,
    VideosInWork,
    window_of,
)
from lvdm_rt.long.ways import sampler_of, visited
from lvdm_rt.long.workdir import WorkDir, WorkDirs
from lvdm_rt.options import Settings
from lvdm_rt.progress import Estimated

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SamplingRun:
    """All that latents depend on, and who is told about each step.

    `condition` holds the last latents of a condition video (c, plan.given, h, w). `step(n)` is
    called after n clips took one sampler step (or were read back); it may raise to stop the run.
    `estimated(sites, latents)` is told after each network call what the new latents (b, c, t, h, w)
    of its clips seem to become; where nobody listens nothing is computed.
    """

    model: ModelFacts
    settings: Settings
    plan: ClipPlan
    networks: Mapping[Stage, Network]
    noise: NoiseSource
    step: Callable[[int], None]
    estimated: Estimated | None = None
    condition: Array | None = None
    work: WorkDir | WorkDirs | None = None
    prompting: Prompting | None = None

    @cached_property
    def schedule(self) -> Schedule:
        """The noise schedule that the model was trained with."""
        return schedule_of(self.model)

    @property
    def lead(self) -> Array | None:
        """The latents (c, plan.lead, h, w) of the condition in the first decode window."""
        if self.condition is None or not self.plan.lead:
            return None
        return self.condition[:, -self.plan.lead :]

    @property
    def videos(self) -> range:
        """Indices of the videos."""
        first = self.settings.first_video
        return range(first, first + self.settings.videos)


def schedule_of(model: ModelFacts) -> Schedule:
    """Return the noise schedule that a model was trained with."""
    facts = model.schedule
    numbers = (facts.steps, facts.beta_start, facts.beta_end)
    return make_schedule(facts.kind, *numbers, zero_snr=facts.zero_snr)


def network_calls(settings: Settings, model: ModelFacts, plan: ClipPlan) -> int:
    """Return how often the network is called for the clips of one video, counted one by one."""
    schedule = schedule_of(model)
    return sum(
        clips * len(visited(settings, schedule, stage)) for stage, clips in plan.counts.items()
    )


def sample(run: SamplingRun) -> Generator[LatentChunk, None, None]:
    """Yield the latents of every video in order; videos of one group take turns.

    Raises NumericsError, SessionError, WorkError.
    """
    videos = VideosInWork(run.plan, run.model.latent, run.condition)
    for batch in batches(run.plan, run.videos, run.settings.batch_size):
        if (known := stored(run, batch)) is not None:
            yield from videos.keep(batch, known)
            continue
        latents = sample_clips(run, videos.work(batch))
        store(run, batch, latents)
        yield from videos.keep(batch, latents)


def stored(run: SamplingRun, batch: ClipBatch) -> list[Array] | None:
    """Return the new latents (c, t, h, w) of clips that are all finished, None for others.

    A batch that is finished in part is sampled whole: in another batch the network could round
    differently, and an interrupted run would not end in the same file.
    """
    if run.work is None:
        return None
    window = window_of(run.plan, batch)
    shape = (run.model.latent.channels, len(window.new), *run.model.latent.size)
    found = [run.work.load(site, shape) for site in batch.sites]
    latents = [clip for clip in found if clip is not None]
    if len(latents) < len(found):
        return None
    run.step(len(found) * steps_of(run, batch.stage))
    return latents


def store(run: SamplingRun, batch: ClipBatch, latents: Array) -> None:
    """Keep the new latents (b, c, t, h, w) of clips for a run that goes on with this one."""
    if run.work is not None:
        for site, row in zip(batch.sites, latents, strict=True):
            run.work.save(site, row)


def steps_of(run: SamplingRun, stage: Stage) -> int:
    """Return how many steps a clip takes."""
    return len(visited(run.settings, run.schedule, stage))


def sample_clips(run: SamplingRun, work: ClipWork) -> Array:
    """Return the new latents (b, c, t, h, w) of a batch; needs nothing of videos but `work`.

    Raises NumericsError, SessionError.
    """
    window = window_of(run.plan, work.batch)
    latents = _sample_batch(run, window, work)[:, :, window.new]
    if not np.isfinite(latents).all():
        raise NumericsError(
            f"after the last step, {name_bad(latents, work.batch.sites)}: latents are NaN or "
            "infinite; use more steps or less guidance"
        )
    return latents


def _sample_batch(run: SamplingRun, window: ClipWindow, work: ClipWork) -> Array:
    """Sample clips from their given latents, all at once.

    Where there are drafts, clips start from them in place of noise: noise is added to them, and
    taken out again in a few steps (SDEdit, Meng et al. 2022, algorithm 1).
    """
    batch, known, drafts = work
    settings, sites = run.settings, batch.sites
    sampler = SAMPLERS[sampler_of(settings, batch.stage)]
    timesteps = visited(settings, run.schedule, batch.stage)
    mask = plan_mask(len(sites), window.clip, window.given)
    z = _condition(run, sites, window, known)
    eps = guided(
        run.networks[batch.stage],
        mask,
        settings.noise_level,
        settings.guidance,
        None if run.prompting is None else run.prompting.told(run.plan, sites),
        settings.guidance_interval,
        window.stride,
    )
    eps = checked(eps, sites, len(timesteps))
    if (told := run.estimated) is not None:
        eps = estimating(eps, run.schedule, lambda x_0: told(sites, x_0[:, :, window.new]))
    shape = (run.model.latent.channels, window.clip, *run.model.latent.size)
    process = Process(
        eps=eps,
        schedule=run.schedule,
        noise=lambda i: draw_rows(run.noise, sites, FIRST_STEP + i, shape),
        given=(lambda x: overwrite(x, z, mask)) if window.given else nothing_given,
    )
    x = draw_rows(run.noise, sites, START, shape)
    if drafts is not None:
        x = perturb(drafts, int(timesteps[0]), x, run.schedule)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named by its clip
        for new_x in sampler.run(process, x, timesteps, settings.eta):
            x = new_x
            run.step(len(sites))
    return x


def _condition(
    run: SamplingRun, sites: tuple[Site, ...], window: ClipWindow, known: Array
) -> Array:
    """Lay the given latents out in the clip, perturbed once for all steps."""
    level = run.settings.noise_level
    if window.given and level >= 0:
        eps = draw_rows(run.noise, sites, PERTURB, known.shape[1:])
        known = perturb(known, level, eps, run.schedule)
    return place(known, window.clip, window.given)
