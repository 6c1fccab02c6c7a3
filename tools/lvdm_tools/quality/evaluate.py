"""Measure a bundle on unseen clips: what its autoencoder keeps, and how real its videos look.

Everything runs through the runtime's pipeline, as users run it. This module writes nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from lvdm_engines.errors import ConfigError
from lvdm_engines.manifest import ModelFacts
from lvdm_rt.decoding.windows import window_starts
from lvdm_rt.long.plan import plan
from lvdm_rt.options import GenerateOptions
from lvdm_rt.pipeline import Pipeline
from lvdm_tools.data.clip import CaptionedSource, ClipSpec
from lvdm_tools.data.source import open_source
from lvdm_tools.quality import targets as quality
from lvdm_tools.quality.prompts import Followed, followed

Clips = NDArray[np.uint8]
Frames = NDArray[np.uint8]
Pair = tuple[Frames, Frames]

REAL_SETS = 3  # sets of unseen clips: the floor is the mean distance of their pairs


@dataclass(frozen=True)
class Protocol:
    """How to measure: numbers of clips, their length, where they come from, how to sample.

    Generated clips are cut after the first `skip` frames of a video, to see how it ages. `sampling`
    holds fields of GenerateOptions; what is missing is the model's own choice. `long_videos` of
    `long_frames` frames are searched for seams; none with 0.
    """

    clips: int = 128
    frames: int = 16
    skip: int = 0
    conditions: int = 32
    data: str | Path = "synth"
    stride: int = 1
    seed: int = 0
    sampling: dict[str, Any] = field(default_factory=dict)
    long_videos: int = 8
    long_frames: int = 160


class Report(msgspec.Struct, frozen=True):
    """All numbers of one bundle, and how they were taken."""

    bundle: str
    data: str
    seed: int
    frames: int
    skip: int
    settings: dict[str, Any]
    reconstruction: quality.Reconstruction | None
    generation: quality.Generation
    continuation: quality.Continuation | None
    long_videos: quality.LongVideos | None
    prompts: Followed | None = None

    @property
    def reached(self) -> bool:
        """Whether every number that was measured meets its target."""
        parts = (self.reconstruction, self.generation, self.continuation, self.long_videos)
        return all(part is None or part.reached for part in parts)


def evaluate(
    pipeline: Pipeline, protocol: Protocol, say: Callable[[str], None] = lambda _: None
) -> Report:
    """Measure an open pipeline; `say` is told which part begins.

    Reconstruction and continuation need an encoder in the bundle, continuation also a predict
    model and a mode that continues; what cannot be measured is None.
    Raises ConfigError: numbers that cannot be measured; TrainingError: the data folder has no
    usable clip.
    """
    _check(protocol, pipeline.manifest.model)
    reads_text = pipeline.manifest.model.context is not None
    if reads_text:  # what has no caption is asked for without one
        protocol = replace(protocol, sampling={"prompt": "", **protocol.sampling})
    settings = msgspec.to_builtins(pipeline.settings(_clip_options(protocol)))
    source = _source(protocol, pipeline.manifest.model)
    say(f"reading {REAL_SETS} × {protocol.clips} unseen clips")
    numbers = np.arange(REAL_SETS * protocol.clips).reshape(REAL_SETS, -1)
    drawn = [[source.captioned(int(number)) for number in row] for row in numbers]
    real = [np.stack([clip for clip, _ in row]) for row in drawn]
    captions = [[caption for _, caption in row] for row in drawn] if reads_text else [[]]
    graphs = pipeline.manifest.graphs
    decoded = None
    if "encoder" in graphs:
        say(f"encoding and decoding {protocol.clips} clips")
        decoded = np.stack([_all(pipeline.decode(pipeline.encode(clip))) for clip in real[0]])
    say(f"generating {protocol.clips} clips")
    generated = generate(pipeline, protocol, captions[0])
    prompts = None
    if reads_text and protocol.data == "synth":
        known = np.concatenate(real[1:]), [caption for row in captions[1:] for caption in row]
        prompts = followed(generated, real[0], captions[0], known)
    continuation = None
    if decoded is not None and "predict" in graphs and settings["mode"] != "short":
        say(f"continuing {protocol.conditions} clips")
        continuation = _continuation(pipeline, protocol, (real[0], decoded))
    long_videos = None
    if protocol.long_videos and settings["mode"] != "short":
        say(f"generating {protocol.long_videos} videos of {protocol.long_frames} frames")
        long_videos = _long_videos(pipeline, protocol)
    return Report(
        bundle=pipeline.manifest.name,
        data=str(protocol.data),
        seed=protocol.seed,
        frames=protocol.frames,
        skip=protocol.skip,
        settings=settings,
        reconstruction=None if decoded is None else quality.reconstruction(decoded, real[0]),
        generation=quality.generation(generated, real),
        continuation=continuation,
        long_videos=long_videos,
        prompts=prompts,
    )


def generate(pipeline: Pipeline, protocol: Protocol, captions: Sequence[str] = ()) -> Clips:
    """Generate the protocol's clips, of captions if there are any: uint8 (n, f, h, w, 3)."""
    size = pipeline.manifest.model.frame_size
    out = np.empty((protocol.clips, protocol.frames, *size, 3), np.uint8)
    asked = _clip_options(protocol)
    each = [
        structs.replace(asked, videos=1, first_video=number, prompt=caption)
        for number, caption in enumerate(captions)
    ]
    for chunk in pipeline.stream_videos(each or asked):
        start = chunk.start - protocol.skip
        new = chunk.frames[max(0, -start) :]
        first = max(0, start)
        out[chunk.video, first : first + len(new)] = new
    return out


def _continuation(
    pipeline: Pipeline, protocol: Protocol, real: tuple[Clips, Clips]
) -> quality.Continuation:
    """Continue unseen clips that no other part of the report has used."""
    pixels, decoded = real
    per_latent = pipeline.manifest.model.frames_per_latent
    wanted = pipeline.condition_frames(_options(protocol, frames=per_latent))
    wanted += -wanted % per_latent
    longer = _source(protocol, pipeline.manifest.model, frames=wanted)
    seen, both = [], []
    for number in range(protocol.conditions):
        given = longer.clip(REAL_SETS * protocol.clips + number)
        mine = _options(protocol, frames=per_latent, first_video=protocol.clips + number)
        seen.append((given[-1], _all(pipeline.stream(mine, condition=given))[0]))
        both.append(_decoded_seam(pipeline, mine, given))
    borders = np.arange(per_latent, pixels.shape[1], per_latent)
    before, after = (decoded[:, borders + i].reshape(-1, *decoded.shape[2:]) for i in (-1, 0))
    (given_last, _), joint = _pairs(seen), _pairs(both)
    seams = quality.Seams(_pairs(seen), (given_last, joint[1]), joint, (before, after))
    return quality.continuation(seams, pixels)


def _decoded_seam(pipeline: Pipeline, options: GenerateOptions, given: Frames) -> Pair:
    """Decode the end of the condition and what follows in one go, as if all were latents."""
    known = pipeline.encode(given)[:, -pipeline.settings(options).overlap or None :]
    new = [chunk.latents for chunk in pipeline.sample_latents(options, condition=given)]
    frames = _all(pipeline.decode(np.concatenate([known, *new], axis=1)))
    first = known.shape[1] * pipeline.manifest.model.frames_per_latent
    return frames[first - 1], frames[first]


def _long_videos(pipeline: Pipeline, protocol: Protocol) -> quality.LongVideos:
    """Generate videos that no other part of the report has used, and keep only their changes."""
    model, frames = pipeline.manifest.model, protocol.long_frames
    first = protocol.clips + protocol.conditions
    options = _options(protocol, frames=frames, videos=protocol.long_videos, first_video=first)
    changes = np.zeros((protocol.long_videos, frames - 1))
    last: dict[int, Frames] = {}
    for chunk in pipeline.stream_videos(options):
        number = chunk.video - first
        known = [last[number]] if number in last else []
        joined = np.concatenate([*known, chunk.frames]).astype(np.int16)
        start = chunk.start - len(known)
        changes[number, start : start + len(joined) - 1] = np.abs(np.diff(joined, axis=0)).mean(
            axis=(1, 2, 3)
        )
        last[number] = chunk.frames[-1:]
    settings = pipeline.settings(options)
    made = plan(frames, model, settings.mode, settings.overlap)
    starts = window_starts(made.latents, model.decode_window, settings.overlap)
    borders = {*starts[1:], *(start + model.decode_window for start in starts[:-1])}
    keys = {made.position(key) for key in range(made.keys)} if made.stride > 1 else set()
    windows, keyframes = (
        [n * model.frames_per_latent for n in places if 0 < n * model.frames_per_latent < frames]
        for places in (borders, keys)
    )
    return quality.long_videos(changes, windows, keyframes)


def _pairs(pairs: Sequence[Pair]) -> tuple[Clips, Clips]:
    before, after = zip(*pairs, strict=True)
    return np.stack(before), np.stack(after)


def _all(chunks: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate(list(chunks))


def _clip_options(protocol: Protocol) -> GenerateOptions:
    return _options(protocol, frames=protocol.skip + protocol.frames, videos=protocol.clips)


def _options(protocol: Protocol, **request: Any) -> GenerateOptions:
    return GenerateOptions(seed=protocol.seed, **request, **protocol.sampling)


def _source(protocol: Protocol, model: ModelFacts, frames: int | None = None) -> CaptionedSource:
    length = protocol.frames if frames is None else frames
    spec = ClipSpec(frames=length, size=model.frame_size, stride=protocol.stride)
    captioned = model.context is not None
    return open_source(protocol.data, spec, seed=protocol.seed, held_out=True, captioned=captioned)


def _check(protocol: Protocol, model: ModelFacts) -> None:
    if protocol.clips < 2 or protocol.conditions < 1 or protocol.skip < 0:
        raise ConfigError(
            f"evaluation: got {protocol.clips} clips, {protocol.conditions} conditions and skip "
            f"{protocol.skip}; expected at least 2, 1 and 0"
        )
    per_latent = model.frames_per_latent
    if protocol.frames % per_latent or protocol.frames < 2 * per_latent:
        raise ConfigError(
            f"evaluation: clips of {protocol.frames} frames were asked; expected a multiple of the "
            f"{per_latent} frames of a latent, {2 * per_latent} or more"
        )
