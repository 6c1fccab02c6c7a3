"""The sampling half of the pipeline: jobs in, latents of each video out, in order.

Knows networks, noise and the work directory; nothing of pixels or threads.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import NumericsError
from lvdm_engines.manifest import ModelFacts
from lvdm_rt.diffusion.condition import overwrite, perturb, place, plan_mask
from lvdm_rt.diffusion.guidance import guided
from lvdm_rt.diffusion.noise import FIRST_STEP, PERTURB, START, NoiseSource, Site, Stage, draw_rows
from lvdm_rt.diffusion.sampler import Process, ddim, ddpm, dpmpp_2m, nothing_given
from lvdm_rt.diffusion.schedule import Schedule, ddim_timesteps, karras_timesteps, make_schedule
from lvdm_rt.long.keyframes import Track
from lvdm_rt.long.network import Network, checked, name_bad
from lvdm_rt.long.plan import Job, Plan, jobs
from lvdm_rt.long.workdir import WorkDir
from lvdm_rt.options import Settings

Array = NDArray[np.float32]


class LatentChunk(NamedTuple):
    """Consecutive latents (c, t, h, w) of one video; `start` is the position of the first."""

    video: int
    start: int
    latents: Array


@dataclass(frozen=True, kw_only=True)
class Run:
    """All that latents depend on, and who is told about each step.

    `condition` holds the last latents of a condition video (c, plan.given, h, w). `step(n)` is
    called after n clips took one sampler step (or were read back); it may raise to stop the run.
    """

    model: ModelFacts
    settings: Settings
    plan: Plan
    networks: Mapping[Stage, Network]
    noise: NoiseSource
    step: Callable[[int], None]
    condition: Array | None = None
    work: WorkDir | None = None

    @property
    def schedule(self) -> Schedule:
        """The noise schedule that the model was trained with."""
        return _schedule(self.model)

    @property
    def steps(self) -> int:
        """Network calls per clip."""
        return sampler_calls(self.settings, self.model)

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


def sampler_calls(settings: Settings, model: ModelFacts) -> int:
    """Return how often the sampler calls the network for one clip."""
    schedule = _schedule(model)
    if settings.sampler == "ddim":
        return len(ddim_timesteps(schedule.steps, settings.steps))
    if settings.sampler == "dpmpp_2m":
        return len(karras_timesteps(schedule, settings.steps))
    return schedule.steps


def _schedule(model: ModelFacts) -> Schedule:
    facts = model.schedule
    return make_schedule(facts.kind, facts.steps, facts.beta_start, facts.beta_end)


def sample(run: Run) -> Generator[LatentChunk, None, None]:
    """Yield the latents of every video in order; videos of one group take turns.

    Raises NumericsError, SessionError, WorkError.
    """
    tracks: dict[int, Track] = {}
    starts: dict[int, int] = {}
    for job in jobs(run.plan, run.videos, run.settings.batch_size):
        for site in job.sites:
            if site.video not in tracks:
                tracks[site.video] = Track(run.plan, run.condition)
                starts[site.video] = 0
        for site, latents in zip(job.sites, _result(run, job, tracks), strict=True):
            _keep(run.plan, tracks[site.video], site, latents)
        for video in dict.fromkeys(site.video for site in job.sites):
            ready = tracks[video].take()
            if ready is None:
                continue
            yield LatentChunk(video, starts[video], ready)
            starts[video] += ready.shape[1]
            if starts[video] >= run.plan.latents:
                del tracks[video], starts[video]


def _keep(plan: Plan, track: Track, site: Site, latents: Array) -> None:
    if site.stage is Stage.INFILL:
        track.add_gap(site.clip, latents)
    else:
        track.add_keys(plan.chain(site.clip), latents)


@dataclass(frozen=True)
class _Window:
    """The window of a job's clips: its length and which of its latents are given."""

    clip: int
    given: tuple[int, ...]

    @property
    def new(self) -> list[int]:
        return [t for t in range(self.clip) if t not in self.given]


def _window(plan: Plan, job: Job) -> _Window:
    if job.stage is Stage.INFILL:
        return _Window(plan.stride + 1, (0, plan.stride))
    return _Window(plan.clip, tuple(range(plan.chain(job.sites[0].clip).given)))


def _result(run: Run, job: Job, tracks: Mapping[int, Track]) -> Iterator[Array]:
    """Return the new latents (c, t, h, w) of every clip, read back where all are finished.

    A job that is finished in part is sampled whole: in another batch the network could round
    differently, and an interrupted run would not end in the same file.
    """
    window = _window(run.plan, job)
    shape = (run.model.latent.channels, len(window.new), *run.model.latent.size)
    if run.work is not None:
        found = [run.work.load(site, shape) for site in job.sites]
        stored = [latents for latents in found if latents is not None]
        if len(stored) == len(found):
            run.step(len(found) * run.steps)
            return iter(stored)
    known = np.stack([_known(run, site, tracks[site.video]) for site in job.sites])
    latents = _sample_job(run, job, window, known)[:, :, window.new]
    if not np.isfinite(latents).all():
        raise NumericsError(
            f"after the last step, {name_bad(latents, job.sites)}: latents are NaN or infinite; "
            "use more steps or less guidance"
        )
    if run.work is not None:
        for site, row in zip(job.sites, latents, strict=True):
            run.work.save(site, row)
    return iter(latents)


def _known(run: Run, site: Site, track: Track) -> Array:
    """Return the given latents (c, n, h, w) of a clip."""
    if site.stage is Stage.INFILL:
        return track.around(site.clip)
    clip = run.plan.chain(site.clip)
    if clip.given == 0:
        return np.zeros((run.model.latent.channels, 0, *run.model.latent.size), np.float32)
    return track.before(clip)


def _sample_job(run: Run, job: Job, window: _Window, known: Array) -> Array:
    """Sample the clips of a job from their given latents (b, c, n, h, w) as one batch."""
    settings, sites = run.settings, job.sites
    mask = plan_mask(len(sites), window.clip, window.given)
    z = _condition(run, sites, window, known)
    eps = guided(run.networks[job.stage], mask, settings.noise_level, settings.guidance)
    shape = (run.model.latent.channels, window.clip, *run.model.latent.size)
    process = Process(
        eps=checked(eps, sites, run.steps),
        schedule=run.schedule,
        noise=lambda i: draw_rows(run.noise, sites, FIRST_STEP + i, shape),
        given=(lambda x: overwrite(x, z, mask)) if window.given else nothing_given,
    )
    x = draw_rows(run.noise, sites, START, shape)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named by its clip
        for new_x in _steps(process, x, settings):
            x = new_x
            run.step(len(sites))
    return x


def _condition(run: Run, sites: tuple[Site, ...], window: _Window, known: Array) -> Array:
    """Lay the given latents out in the clip, perturbed once for all steps."""
    level = run.settings.noise_level
    if window.given and level >= 0:
        eps = draw_rows(run.noise, sites, PERTURB, known.shape[1:])
        known = perturb(known, level, eps, run.schedule)
    return place(known, window.clip, window.given)


def _steps(process: Process, x: Array, settings: Settings) -> Iterator[Array]:
    if settings.sampler == "ddpm":
        return ddpm(process, x)
    if settings.sampler == "ddim":
        return ddim(process, x, settings.steps, settings.eta)
    return dpmpp_2m(process, x, settings.steps)
