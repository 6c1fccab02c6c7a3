"""A checked request as a run: its noise, its networks, what it is given and told, its films.

Knows requests, the encoder and the text encoder; nothing of who reads the frames.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.errors import PlanError
from lvdm_rt.background import Stop, prefetch
from lvdm_rt.decoding.autoencoder import Autoencoder
from lvdm_rt.decoding.detail_fade import DetailFade
from lvdm_rt.decoding.frames import Chunk, FilmsInWork, decode_videos
from lvdm_rt.diffusion.noise import NoiseSource, Site, philox
from lvdm_rt.long.network import Network
from lvdm_rt.long.prompting import Prompting
from lvdm_rt.long.sampling import SamplingRun, sample
from lvdm_rt.long.ways import denoiser
from lvdm_rt.long.workdir import WorkDir, WorkDirs
from lvdm_rt.model import Model
from lvdm_rt.progress import Counter
from lvdm_rt.request import Request
from lvdm_rt.text.encoder import TextEncoder

Array = NDArray[np.float32]
Work = WorkDir | WorkDirs
Making = Callable[[Request, SamplingRun, FilmsInWork, Stop], Generator[Chunk, None, None]]
"""How the videos of a run are made until it is to stop: yields their frames."""

LATENTS_AHEAD = 4  # chunks of latents that may wait for the decoder


def check_texts(request: Request, model: Model, text: TextEncoder | None) -> None:
    """Tokenize what a request tells its videos, and say what of it is cut.

    Raises PlanError where the bundle cannot, BundleError for a tokenizer that does not fit.
    """
    if not request.texts:
        return
    model.session("text_encoder")
    if text is None:
        raise PlanError(f"{model.manifest.name} has no tokenizer; give one with its sessions")
    for told in sorted(request.texts):
        text.tokens(told)


def work_of(request: Request, stack: ExitStack) -> Work | None:
    """Lock what a request keeps its finished latents in until the stack is left.

    Raises OtherRunError, WorkError.
    """
    folders = [
        stack.enter_context(WorkDir(path, identity, resume=request.resume, restart=request.restart))
        for path, identity in zip(request.work, request.identities, strict=False)
    ]
    if request.work_of_each:
        return WorkDirs(folders)
    return folders[0] if folders else None


def sampling_run(
    request: Request,
    model: Model,
    text: TextEncoder | None,
    counter: Counter,
    work: Work | None,
) -> SamplingRun:
    """Return the run of a request; encodes what it is given; `counter` is told of each step.

    Raises SessionError, NumericsError.
    """
    settings = request.settings
    given: Array | None = None
    if request.condition is not None:
        latents = Autoencoder(model).encode(request.condition, settings.overlap)
        given = latents[:, latents.shape[1] - request.plan.given :]
    networks = {
        stage: Network(model, denoiser(settings, stage), exact=settings.exact)
        for stage in request.plan.counts
    }
    return SamplingRun(
        model=model.facts,
        settings=settings,
        plan=request.plan,
        networks=networks,
        noise=_noise(request),
        condition=given,
        work=work,
        step=counter.step,
        estimated=counter.estimated,
        prompting=None if text is None else _prompting(request, model, text),
    )


def films_of(request: Request, run: SamplingRun, model: Model) -> FilmsInWork:
    """Return what the latents of a run become."""
    autoencoder = Autoencoder(model)
    return FilmsInWork(
        request.plan,
        lambda: autoencoder.decoder(request.settings.overlap),
        run.lead,
        lambda: _detail_fade(request),
    )


def make_here(
    _: Request, run: SamplingRun, films: FilmsInWork, stop: Stop
) -> Generator[Chunk, None, None]:
    """Sample videos in a thread of its own, with the sessions of the run, and decode them."""
    return decode_videos(films, prefetch(sample(run), LATENTS_AHEAD, stop))


def _detail_fade(request: Request) -> DetailFade | None:
    if request.condition is None:
        return None
    settings = request.settings
    return DetailFade(request.condition[-1], settings.fade, settings.frames)


def _noise(request: Request) -> NoiseSource:
    """Return the noise of every video, which is that of the video alone."""
    if not request.each:
        return philox(request.settings.seed)

    def source(site: Site, draw: int, shape: tuple[int, ...]) -> Array:
        own = request.each[site.video]
        return philox(own.seed)(site._replace(video=own.first_video), draw, shape)

    return source


def _prompting(request: Request, model: Model, text: TextEncoder) -> Prompting:
    settings = request.settings
    return Prompting(
        context=text.context,
        prompts=request.prompts,
        negative=settings.negative_prompt or "",
        weight=settings.text_guidance or 0.0,
        frames_per_latent=model.facts.frames_per_latent,
    )
