"""The sampling half of the pipeline: batches of clips in, latents of each video out, in order.

Knows networks, noise and the work directory; nothing of pixels or threads.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import NumericsError
from lvdm_engines.manifest import ModelFacts
from lvdm_rt.diffusion.condition import overwrite, perturb, place, plan_mask
from lvdm_rt.diffusion.guidance import guided
from lvdm_rt.diffusion.noise import FIRST_STEP, PERTURB, START, NoiseSource, Site, Stage, draw_rows
from lvdm_rt.diffusion.sampler import SAMPLERS, Process, nothing_given
from lvdm_rt.diffusion.schedule import Schedule, Timesteps, karras_timesteps, make_schedule
from lvdm_rt.long.keyframes import VideoLatents
from lvdm_rt.long.network import Network, checked, estimating, name_bad
from lvdm_rt.long.plan import ClipBatch, ClipPlan, batches
from lvdm_rt.long.prompting import Prompting
from lvdm_rt.long.workdir import WorkDir, WorkDirs
from lvdm_rt.options import Settings
from lvdm_rt.progress import Estimated

Array = NDArray[np.float32]

REFINE_FROM = 0.1  # of the trained timesteps: how much noise the second pass adds


class LatentChunk(NamedTuple):
    """Consecutive latents (c, t, h, w) of one video; `start` is the position of the first."""

    video: int
    start: int
    latents: Array


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


def visited(settings: Settings, schedule: Schedule, stage: Stage) -> Timesteps:
    """Return the timesteps at which the sampler calls the network for a clip, descending."""
    if stage is Stage.REFINE:
        return karras_timesteps(schedule, settings.refine, int(REFINE_FROM * schedule.steps))
    return SAMPLERS[settings.sampler].timesteps(schedule, settings.steps)


def sample(run: SamplingRun) -> Generator[LatentChunk, None, None]:
    """Yield the latents of every video in order; videos of one group take turns.

    Raises NumericsError, SessionError, WorkError.
    """
    videos: dict[int, VideoLatents] = {}
    starts: dict[int, int] = {}
    for batch in batches(run.plan, run.videos, run.settings.batch_size):
        for site in batch.sites:
            if site.video not in videos:
                videos[site.video] = VideoLatents(run.plan, run.condition)
                starts[site.video] = 0
        for site, latents in zip(batch.sites, _result(run, batch, videos), strict=True):
            _keep(run.plan, videos[site.video], site, latents)
        for video in dict.fromkeys(site.video for site in batch.sites):
            ready = videos[video].take()
            if ready is None:
                continue
            yield LatentChunk(video, starts[video], ready)
            starts[video] += ready.shape[1]
            if starts[video] >= run.plan.latents:
                del videos[video], starts[video]


def _keep(plan: ClipPlan, video: VideoLatents, site: Site, latents: Array) -> None:
    if site.stage is Stage.INFILL:
        video.add_gap(site.clip, latents)
    elif site.stage is Stage.REFINE:
        video.add_refined(site.clip, latents)
    else:
        video.add_keys(plan.chain(site.clip), latents)


@dataclass(frozen=True)
class _Window:
    """The window of a batch's clips: its length and which of its latents are given."""

    clip: int
    given: tuple[int, ...]

    @property
    def new(self) -> list[int]:
        return [t for t in range(self.clip) if t not in self.given]


def _window(plan: ClipPlan, batch: ClipBatch) -> _Window:
    if batch.stage in (Stage.INFILL, Stage.REFINE):
        return _Window(plan.stride + 1, (0, plan.stride))
    return _Window(plan.clip, tuple(range(plan.chain(batch.sites[0].clip).given)))


def _result(
    run: SamplingRun, batch: ClipBatch, videos: Mapping[int, VideoLatents]
) -> Iterator[Array]:
    """Return the new latents (c, t, h, w) of every clip, read back where all are finished.

    A batch that is finished in part is sampled whole: in another batch the network could round
    differently, and an interrupted run would not end in the same file.
    """
    window = _window(run.plan, batch)
    shape = (run.model.latent.channels, len(window.new), *run.model.latent.size)
    if run.work is not None:
        found = [run.work.load(site, shape) for site in batch.sites]
        stored = [latents for latents in found if latents is not None]
        if len(stored) == len(found):
            run.step(len(found) * len(visited(run.settings, run.schedule, batch.stage)))
            return iter(stored)
    given = [(site, videos[site.video]) for site in batch.sites]
    if batch.stage is Stage.REFINE:
        drafts = np.stack([video.near(site.clip) for site, video in given])
        latents = _sample_batch(run, batch, window, drafts[:, :, window.given], drafts)
    else:
        known = np.stack([_known(run, site, video) for site, video in given])
        latents = _sample_batch(run, batch, window, known)
    latents = latents[:, :, window.new]
    if not np.isfinite(latents).all():
        raise NumericsError(
            f"after the last step, {name_bad(latents, batch.sites)}: latents are NaN or infinite; "
            "use more steps or less guidance"
        )
    if run.work is not None:
        for site, row in zip(batch.sites, latents, strict=True):
            run.work.save(site, row)
    return iter(latents)


def _known(run: SamplingRun, site: Site, video: VideoLatents) -> Array:
    """Return the given latents (c, n, h, w) of a clip."""
    if site.stage is Stage.INFILL:
        return video.around(site.clip)
    clip = run.plan.chain(site.clip)
    if clip.given == 0:
        return np.zeros((run.model.latent.channels, 0, *run.model.latent.size), np.float32)
    return video.before(clip)


def _sample_batch(
    run: SamplingRun,
    batch: ClipBatch,
    window: _Window,
    known: Array,
    drafts: Array | None = None,
) -> Array:
    """Sample clips from their given latents (b, c, n, h, w), all at once.

    `drafts` (b, c, t, h, w) are clips to start from in place of noise: noise is added to them, and
    taken out again in a few steps (SDEdit, Meng et al. 2022, algorithm 1).
    """
    settings, sites = run.settings, batch.sites
    sampler = SAMPLERS[settings.sampler if drafts is None else "dpmpp_2m"]
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


def _condition(run: SamplingRun, sites: tuple[Site, ...], window: _Window, known: Array) -> Array:
    """Lay the given latents out in the clip, perturbed once for all steps."""
    level = run.settings.noise_level
    if window.given and level >= 0:
        eps = draw_rows(run.noise, sites, PERTURB, known.shape[1:])
        known = perturb(known, level, eps, run.schedule)
    return place(known, window.clip, window.given)
