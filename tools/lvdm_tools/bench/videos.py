"""Whole videos, ours and the authors' code in turns; and how ours grow with length and number."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from msgspec.structs import replace

from lvdm_engines.bundle import Bundle
from lvdm_rt import GenerateOptions, Pipeline
from lvdm_rt.options import resolve
from lvdm_tools.bench import end_to_end as ours
from lvdm_tools.bench import official_loop as official
from lvdm_tools.bench.clock import Found, alone, attempt, failure, in_turns, peak_mib, spread
from lvdm_tools.bench.feeds import Ours

_FEW = 2  # steps where their number does not matter: to warm up, and for memory
_STEPS = 5  # of videos that only differ in length or number
_LENGTH = 64  # frames of several videos
_EVERY_SIZE = 256  # frames of a video whose calls have all the sizes that longer ones have
_PER_CLIP = 16  # frames per clip of a batch, at least: keyframes 4 latents apart

Way = Callable[[GenerateOptions], Found]


def equal_steps(frames: int, steps: int) -> GenerateOptions:
    """Return what the authors' code can do as well."""
    return GenerateOptions(frames=frames, sampler="ddim", steps=steps, refine=0)


def time_videos(
    subject: Ours,
    authors: dict[str, official.Official | Found],
    options: GenerateOptions,
    seconds: float,
) -> Found:
    """Generate one video in every way in turns; returns speeds and peak memory of each.

    Each way is opened and warmed up by the same video in few steps before any is measured; a
    student by its own few.
    """
    found: Found = {}
    with ExitStack() as stack:
        ways: dict[str, Way] = {}
        for name in subject.backends:
            pipeline = _open(subject, name)
            found[name] = failure(pipeline)
            if found[name] is None:
                ways[name] = partial(ours.generate, stack.enter_context(pipeline))
        for name, model in authors.items():
            if isinstance(model, official.Official):
                ways[name] = model.generate
            else:
                found[name] = model
        student = resolve(options, subject.bundle.manifest).sampler == "distilled"
        short = options if student else equal_steps(options.frames, _FEW)
        warm = {name: failure(attempt(way, short)) for name, way in ways.items()}
        found |= warm
        calls = {n: partial(way, options) for n, way in ways.items() if warm[n] is None}
        runs = in_turns(calls, seconds, least=1, warm=0)
    for name in calls:
        found[name] = failure(runs[name]) or _summary(runs[name])
        found[name]["peak_mib"] = peak_mib(_once(subject, name, short))
    return found


def _summary(runs: list[Found]) -> Found:
    told = spread("seconds", [run["seconds"] for run in runs])
    first = spread("seconds", [run["first_seconds"] for run in runs])["seconds"]
    frames = runs[0]["frames"]
    speed = frames / told["seconds"]
    return {**told, "frames": frames, "frames_per_second": speed, "first_seconds": first}


def _open(subject: Ours, backend: str) -> Any:
    return attempt(Pipeline.open, subject.bundle.path, backend, subject.options)


def _once(subject: Ours, name: str, options: GenerateOptions) -> Callable[[], Found]:
    """Return what makes a video in a process of its own."""
    if name in (official.EAGER, official.COMPILED):
        compiled = name == official.COMPILED
        return partial(official.generate_once, subject.bundle.path, options, compiled=compiled)
    return partial(ours.generate_once, subject.bundle.path, name, subject.options, options)


def time_growth(
    subject: Ours, backend: str, lengths: tuple[int, ...], numbers: tuple[int, ...]
) -> Iterator[tuple[str, str, Found]]:
    """Yield how time and memory grow: with frames, clips per batch, and videos at once.

    Videos differ in length; batches are timed without decoding, on as many clips as the largest
    holds; videos are short ones in one batch. Numbers of videos end at half of those of clips. All
    are warmed up by the same in few steps, long videos by one that needs every size of calls.
    """
    first = equal_steps(lengths[0], _FEW)
    for frames in lengths:
        videos = equal_steps(min(frames, _EVERY_SIZE), _FEW), equal_steps(frames, _STEPS)
        once = partial(ours.generate_once, subject.bundle.path, backend, subject.options, *videos)
        yield "frames", str(frames), attempt(alone, once)
    pipeline = _open(subject, backend)
    with ExitStack() as stack:
        if not failure(pipeline):
            stack.enter_context(pipeline)
            attempt(ours.generate, pipeline, first)  # which compiles the decoder
        for kind, number, options in _numbers(subject.bundle, numbers):
            make: Any = _sample if kind == "batch" else ours.generate
            yield kind, str(number), failure(pipeline) or attempt(_warm, make, pipeline, options)


def _warm(
    make: Callable[[Pipeline, GenerateOptions], Found], pipeline: Pipeline, options: GenerateOptions
) -> Found:
    """Measure once the denoiser is compiled, for each size on some backends."""
    _sample(pipeline, replace(options, steps=_FEW))
    return make(pipeline, options)


def _numbers(
    bundle: Bundle, numbers: tuple[int, ...]
) -> Iterator[tuple[str, int, GenerateOptions]]:
    usual = resolve(GenerateOptions(), bundle.manifest).batch_size
    common: Any = {"sampler": "ddim", "steps": _STEPS, "refine": 0}
    frames = _PER_CLIP * numbers[-1]
    for n in numbers:
        yield "batch", n, GenerateOptions(frames=frames, batch_size=n, **common)
    for n in numbers[:-1]:
        size = max(usual, n)
        yield "videos", n, GenerateOptions(frames=_LENGTH, videos=n, batch_size=size, **common)


def _sample(pipeline: Pipeline, options: GenerateOptions) -> Found:
    """Sample latents, and decode none."""
    started = time.perf_counter()
    for _ in pipeline.sample_latents(ours.unprompted(pipeline, options)):
        pass
    return {"frames": options.frames, "seconds": time.perf_counter() - started}
