"""Videos as the authors' code makes them: one clip at a time, then all latents decoded at once.

Runs in torch, on arrays of torch from the first noise to the frames; the arithmetic of the steps is
the runtime's own, which takes them as it takes NumPy's.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor

from lvdm_engines.bundle import load_bundle
from lvdm_engines.manifest import DENOISERS, Manifest
from lvdm_export.graph.graphs import DecoderGraph, EncoderGraph
from lvdm_rt import GenerateOptions
from lvdm_rt.diffusion.condition import perturb
from lvdm_rt.diffusion.sampler import SAMPLERS, Process
from lvdm_rt.long.plan import plan
from lvdm_rt.long.sampling import schedule_of
from lvdm_rt.options import Settings, resolve
from lvdm_tools.bench import official_layout
from lvdm_tools.bench.feeds import random_feeds
from lvdm_tools.bench.models import likeness

EAGER, COMPILED = "torch eager", "torch.compile"

Call = Callable[..., Any]


class Official:
    """A bundle's networks in the authors' layout, eager or compiled, and their loop around them."""

    def __init__(self, manifest: Manifest, *, compiled: bool = False) -> None:
        """Make the networks. Raises OptionsError for a bundle of unknown sizes."""
        self._manifest, latent = manifest, manifest.model.latent
        found = likeness(manifest)
        self.gflop = found.gflop
        self._config = found.unet.config
        autoencoder = official_layout.use_transposed(found.autoencoder)
        self._calls: dict[str, Call] = {
            "decoder": DecoderGraph(autoencoder, latent),
            "encoder": EncoderGraph(autoencoder, latent),
        }
        denoise: Call = partial(official_layout.forward, found.unet)
        if compiled:
            # for one shape at a time, as it is timed; the decoder is convolutions, which stay what
            # they are, and takes minutes to compile for the length of a video
            denoise = torch.compile(denoise, dynamic=False)
        self._calls |= dict.fromkeys(DENOISERS, denoise)

    def run(self, graph: str, feeds: dict[str, NDArray[Any]]) -> Any:
        """Run one graph on the feeds of a session."""
        with torch.inference_mode():
            return self._calls[graph](**{n: torch.from_numpy(a) for n, a in feeds.items()})

    def generate(self, options: GenerateOptions) -> dict[str, Any]:
        """Make one video; its first frames are there when all are."""
        settings = resolve(options, self._manifest)
        started = time.perf_counter()
        with torch.inference_mode():
            frames = self._calls["decoder"](latents=self._latents(settings))[0][0]
        taken = time.perf_counter() - started
        made = min(len(frames), settings.frames)
        return {"frames": made, "seconds": taken, "first_seconds": taken}

    def _latents(self, settings: Settings) -> Tensor:
        """Sample the latents (1, c, t, h, w) of one video: keyframes, then gap after gap."""
        planned = plan(settings.frames, self._manifest.model, settings.mode, settings.overlap)
        channels, size = self._manifest.model.latent.channels, self._manifest.model.latent.size
        keys = torch.zeros(1, channels, 0, *size)
        name = "short" if settings.mode == "short" else "predict"
        for index in range(planned.clips):
            given = planned.chain(index).given
            known = keys[:, :, keys.shape[2] - given :]
            x = self._sample(settings, name, known, range(given))
            keys = torch.cat([keys, x[:, :, given:]], dim=2)
        parts = [keys[:, :, :1]] if planned.gaps else [keys]
        for gap in planned.gaps:
            ends = keys[:, :, gap - 1 : gap + 1]
            x = self._sample(settings, "interpolate", ends, (0, planned.stride))
            parts += [x[:, :, 1:-1], ends[:, :, 1:]]
        return torch.cat(parts, dim=2)[:, :, : planned.latents]

    def _sample(self, settings: Settings, name: str, known: Tensor, given: Sequence[int]) -> Tensor:
        """Denoise one clip whose latents at `given` are `known`."""
        model = self._manifest.model
        (clip,) = model.clips(name)
        shape = (1, model.latent.channels, clip, *model.latent.size)
        schedule, sampler = schedule_of(model), SAMPLERS[settings.sampler]
        mask, z = torch.zeros(1, clip), torch.zeros(shape)
        mask[:, list(given)] = 1
        perturbed = bool(given) and settings.noise_level >= 0
        if perturbed:
            known = perturb(known, settings.noise_level, torch.randn(known.shape), schedule)  # type: ignore[arg-type,assignment]
        z[:, :, list(given)] = known
        level = settings.noise_level if perturbed else -1
        process: Any = Process(
            eps=cast("Any", partial(self._eps, settings.guidance, name, mask, level)),
            schedule=schedule,
            noise=cast("Any", lambda _: torch.randn(shape)),
            given=cast("Any", lambda x: torch.where(mask[:, None, :, None, None] > 0, z, x)),
        )
        timesteps = sampler.timesteps(schedule, settings.steps)
        x: Any = torch.randn(shape)
        for new_x in sampler.run(process, x, timesteps, settings.eta):
            x = new_x
        return cast("Tensor", x)

    def _eps(self, weight: float, name: str, mask: Tensor, level: int, x: Tensor, t: int) -> Tensor:
        """Predict the noise in x, guided in a call of its own where there is something given."""
        config, timestep = self._config, torch.full((1,), t)

        def call(mask: Tensor, level: int) -> Tensor:
            masks = {"mask": mask} if config.in_channels == config.out_channels + 1 else {}
            levels = {} if config.num_classes is None else {"noise_level": torch.full((1,), level)}
            eps: Tensor = self._calls[name](latents=x, timestep=timestep, **masks, **levels)
            return eps

        eps = call(mask, level)
        if weight == 0 or not mask.any():
            return eps
        return (1 + weight) * eps - weight * call(torch.zeros_like(mask), -1)


def generate_once(folder: Path, options: GenerateOptions, *, compiled: bool) -> dict[str, Any]:
    """Make a video in torch: for a process of its own."""
    return Official(load_bundle(folder).manifest, compiled=compiled).generate(options)


def run_once(folder: Path, graph: str) -> dict[str, Any]:
    """Run one graph at batch 1: for a process of its own."""
    bundle = load_bundle(folder)
    Official(bundle.manifest).run(graph, random_feeds(bundle, graph, 1))
    return {}
