"""Whose videos are measured: a bundle with settings, a folder of videos, or real clips.

Each gives its videos as clips of 16 frames, in bounded memory. Knows no features or distances.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from lvdm_engines.bundle import MANIFEST, builtin_bundles
from lvdm_engines.errors import ConfigError, OptionsError, TrainingError, quoted
from lvdm_rt.options import GenerateOptions
from lvdm_rt.pipeline import Pipeline
from lvdm_tools.data.clip import ClipSource, ClipSpec
from lvdm_tools.data.folder import look
from lvdm_tools.data.source import open_source
from lvdm_tools.data.video_file import read_clip, size_and_rate
from lvdm_tools.quality.blocks import Wanted, clips_of_blocks
from lvdm_tools.quality.networks import CLIP

Frames = NDArray[np.uint8]
Cut = tuple[int, int, Frames]  # number of a video, of its clip, (16, h, w, 3)

# fields of GenerateOptions that a subject may set; the others are the protocol's
SETTINGS = (
    *("mode", "preset", "sampler", "steps", "eta", "guidance", "text_guidance", "noise_level"),
    *("refine", "batch_size"),
)
_SUBJECT = re.compile(r"(?:([^=:/]+)=)?(.+?)(?::(\w+=[^:/]*))?")


class Subject(Protocol):
    """A set of videos. `identity` decides what they show, `count` is None where it has no end."""

    @property
    def label(self) -> str:
        """Its name in tables and plots."""

    @property
    def identity(self) -> str:
        """What, beside numbers and length of videos, decides what they show."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of frames."""

    @property
    def count(self) -> int | None:
        """How many videos there are."""

    def clips(self, videos: range, wanted: Wanted) -> Iterator[Cut]:
        """Yield what is wanted of each video, cut into clips, in any order."""


@dataclass(frozen=True)
class Asked:
    """A subject as it is written: `LABEL=BUNDLE:key=value,…` or `LABEL=FOLDER`."""

    label: str
    what: str
    settings: dict[str, Any]

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of videos and no bundle."""
        path = Path(self.what)
        return (
            self.what not in builtin_bundles() and path.is_dir() and not (path / MANIFEST).exists()
        )


def read_subject(text: str) -> Asked:
    """Take apart what names a subject.

    Raises OptionsError: settings that generate does not have.
    """
    found = None if Path(text).exists() else _SUBJECT.fullmatch(text)
    if found is None:
        return Asked(Path(text).name or text, text, {})
    label, what, settings = found.groups()
    pairs = dict(pair.partition("=")[::2] for pair in settings.split(",")) if settings else {}
    if unknown := [name for name in pairs if name not in SETTINGS]:
        raise OptionsError(
            f"{quoted(text)}: got {quoted(unknown[0])}, expected settings out of "
            f"{', '.join(SETTINGS)}"
        )
    name = Path(what).name or what
    return Asked(label or (f"{name}:{settings}" if settings else name), what, pairs)


@dataclass(frozen=True)
class Generated:
    """Videos of a bundle; number n is video n of one seed."""

    label: str
    pipeline: Pipeline
    options: GenerateOptions
    count: None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of frames."""
        return self.pipeline.manifest.model.frame_size

    @property
    def identity(self) -> str:
        """What the graphs hold, how they are sampled, and what computes them."""
        graphs = sorted(facts.sha256 for facts in self.pipeline.manifest.graphs.values())
        settings = msgspec.json.encode(self.pipeline.settings(self.options)).decode()
        return f"{graphs} {settings} {self.pipeline.arithmetic}"

    def clips(self, videos: range, wanted: Wanted) -> Iterator[Cut]:
        """Generate videos side by side; blocks that are not wanted are not decoded."""
        options = msgspec.structs.replace(
            self.options, frames=wanted.frames, videos=len(videos), first_video=videos.start
        )
        if wanted.every > 1:
            yield from clips_of_blocks(self.pipeline, options, wanted)
            return
        begun: dict[int, tuple[int, Frames]] = {}
        for chunk in self.pipeline.stream_videos(options):
            number, rest = begun.get(chunk.video, (0, chunk.frames[:0]))
            rest = np.concatenate([rest, chunk.frames])
            while len(rest) >= CLIP:
                yield chunk.video, number, rest[:CLIP]
                number, rest = number + 1, rest[CLIP:]
            begun[chunk.video] = number, rest


def generated(asked: Asked, pipeline: Pipeline, seed: int, common: dict[str, Any]) -> Generated:
    """Set up the videos of an open bundle; `common` are settings that it does not set itself.

    A model that reads text is asked for nothing in particular.

    Raises OptionsError: a setting that the model cannot have.
    """
    text = {} if pipeline.manifest.model.context is None else {"prompt": ""}
    try:
        options = msgspec.convert(
            {**text, **common, **asked.settings, "seed": seed}, GenerateOptions, strict=False
        )
    except msgspec.ValidationError as err:
        raise OptionsError(f"{asked.label}: {err}") from err
    pipeline.settings(options)
    return Generated(asked.label, pipeline, options)


@dataclass(frozen=True)
class Films:
    """Files below a folder, each of one size and rate, in an order that is drawn once."""

    label: str
    identity: str
    size: tuple[int, int]
    paths: tuple[Path, ...]

    @property
    def count(self) -> int:
        """How many are long enough."""
        return len(self.paths)

    def clips(self, videos: range, wanted: Wanted) -> Iterator[Cut]:
        """Read the beginnings of videos."""
        spec = ClipSpec(CLIP, self.size)
        for video in videos:
            for number in wanted.clips:
                yield video, number, read_clip(self.paths[video], number * CLIP, spec)


def films(asked: Asked, frames: int, seed: int, say: Callable[[str], None]) -> Films:
    """Look at a folder of videos; those that are shorter than `frames` are left out and told.

    Raises TrainingError: no video in it; ConfigError: settings, all too short, or mixed.
    """
    if asked.settings:
        raise OptionsError(f"{asked.what} is a folder of videos, which takes no settings")
    listing = look(Path(asked.what))
    long = [path for path, length in listing.lengths.items() if length >= frames]
    if not long:
        raise ConfigError(
            f"{asked.what}: no video has {frames} frames, the longest has "
            f"{max(listing.lengths.values())}; lower --frames, or give longer videos"
        )
    if short := len(listing.lengths) - len(long):
        say(f"{asked.label}: left out {short} videos shorter than {frames} frames")
    kinds: dict[tuple[tuple[int, int], Fraction | None], Path] = {}
    for path in long:
        kinds.setdefault(size_and_rate(path), path)
    (size, rate), *others = kinds
    if others:
        first, other = list(kinds.values())[:2]
        raise ConfigError(
            f"{asked.what} mixes sizes or rates: {first.name} has {_told(size, rate)}, "
            f"{other.name} {_told(*others[0])}; give one kind at a time"
        )
    order = np.random.default_rng(seed).permutation(len(long))
    identity = f"{listing.identity}, {frames}, seed {seed}"
    return Films(asked.label, identity, size, tuple(long[i] for i in order))


def _told(size: tuple[int, int], rate: Fraction | None) -> str:
    rates = "" if rate is None else f" at {float(rate):g} frames per second"
    return f"{size[1]}×{size[0]}{rates}"


@dataclass(frozen=True)
class EveryVideo:
    """Clips of a folder, each of another video until all were used, from a start that is drawn."""

    spec: ClipSpec
    seed: int
    identity: str
    lengths: dict[Path, int]

    def clip(self, index: int) -> Frames:
        """Cut clip `index`. Raises TrainingError: its video is damaged."""
        paths = list(self.lengths)
        path = paths[np.random.default_rng(self.seed).permutation(len(paths))[index % len(paths)]]
        starts = self.lengths[path] - self.spec.span + 1
        start = int(np.random.default_rng([self.seed, index]).integers(starts))
        return read_clip(path, start, self.spec)


@dataclass(frozen=True)
class Real:
    """Clips of a data set, each as long as a block, that are what videos are compared with."""

    source: ClipSource
    seed: int
    count: int | None
    label: str = "real"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of frames."""
        return self.source.spec.size

    @property
    def identity(self) -> str:
        """The data's own, and how clips are cut from it."""
        return f"{self.source.identity}, {self.source.spec}, seed {self.seed}"

    def clips(self, videos: range, wanted: Wanted) -> Iterator[Cut]:
        """Read clips by number."""
        for video in videos:
            whole = self.source.clip(video)
            for number in wanted.clips:
                yield video, number, whole[number * CLIP : (number + 1) * CLIP]


def real(data: str, spec: ClipSpec, seed: int) -> Real:
    """Open real clips: held-out synthetic skies, or all videos of a folder that are long enough.

    Raises TrainingError: no folder, no video in it, or none long enough.
    """
    if data == "synth":
        return Real(open_source(data, spec, seed=seed, held_out=True), seed, None)
    listing = look(Path(data))
    lengths = {path: frames for path, frames in listing.lengths.items() if frames >= spec.span}
    if not lengths:
        raise TrainingError(
            f"{data}: no video has the {spec.span} frames that clips of {spec.frames} at stride "
            f"{spec.stride} need; lower --frames, --block or --stride, or add longer videos"
        )
    return Real(EveryVideo(spec, seed, listing.identity, lengths), seed, len(lengths))
