"""From what was asked to a comparison: opens bundles, folders, the data and the network."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from lvdm_engines.errors import ConfigError, OptionsError, quoted
from lvdm_rt.pipeline import Pipeline
from lvdm_tools.data.clip import ClipSpec
from lvdm_tools.quality.compare import PUBLISHED, Extent, compare
from lvdm_tools.quality.curves import VideoComparison
from lvdm_tools.quality.networks import CLIP, RANDOM, open_network
from lvdm_tools.quality.subjects import Asked, Subject, films, generated, read_subject, real

Say = Callable[[str], None]

_VIDEOS, _LONG_VIDEOS = 128, 16  # of each subject, unless asked
_LONG = 512  # frames of a video over time, unless asked


@dataclass(frozen=True)
class ComparisonRequest:
    """What to compare with which data, and how; None means what suits the rest."""

    asked: Sequence[Asked]
    data: str = "synth"
    features: str = RANDOM
    backend: str = "auto"
    over_time: bool = False
    videos: int | None = None
    frames: int | None = None
    block: int = 64
    repeats: int = 1
    every: int = 1
    stride: int = 1
    seed: int = 0
    sampling: dict[str, Any] = field(default_factory=dict)

    @property
    def lengths(self) -> tuple[int, int]:
        """Frames of a video and of a block."""
        frames = self.frames or (_LONG if self.over_time else CLIP)
        return frames, self.block if self.over_time else frames


def read_subjects(texts: Sequence[str]) -> list[Asked]:
    """Take apart what names subjects.

    Raises OptionsError: a setting that is none, a label that is not printable, or used twice.
    """
    asked = [read_subject(text) for text in texts]
    labels = [one.label for one in asked]
    for label in labels:
        if not label.isprintable() or labels.count(label) > 1:
            raise OptionsError(
                f"got the label {quoted(label)}, expected one of its own for each; give them as "
                "LABEL=BUNDLE:key=value,… or LABEL=FOLDER"
            )
    return asked


def run(request: ComparisonRequest, say: Say) -> VideoComparison:
    """Open everything, then measure; what a machine has measured before is not measured again.

    Raises ConfigError, OptionsError, TrainingError, and what opening and running a bundle raise.
    """
    Extent(request.videos or _VIDEOS, *request.lengths, request.repeats)
    with ExitStack() as stack:
        network = stack.enter_context(open_network(request.features, request.backend))
        subjects = _open(request, stack, say)
        usual = PUBLISHED if network.published else _VIDEOS
        wanted = request.videos or (_LONG_VIDEOS if request.over_time else usual)
        most = _most(subjects, wanted, request.repeats, say)
        extent = Extent(most, *request.lengths, request.repeats, request.every)
        spec = ClipSpec(extent.block, _size(subjects), request.stride)
        known = real(request.data, spec, request.seed)
        found = compare(subjects, known, network, extent, say)
    return VideoComparison(
        features=network.name,
        data=request.data,
        videos=extent.videos,
        repeats=extent.repeats,
        seed=request.seed,
        points=tuple(found.points),
        ageing=tuple(found.ageing),
    )


def _open(request: ComparisonRequest, stack: ExitStack, say: Say) -> list[Subject]:
    pipelines: dict[str, Pipeline] = {}
    subjects: list[Subject] = []
    for asked in request.asked:
        if asked.is_folder:
            subjects.append(films(asked, request.lengths[0], request.seed, say))
            continue
        if asked.what not in pipelines:
            opened = Pipeline.open(asked.what, request.backend)
            pipelines[asked.what] = stack.enter_context(opened)
        subjects.append(generated(asked, pipelines[asked.what], request.seed, request.sampling))
    return subjects


def _size(subjects: Sequence[Subject]) -> tuple[int, int]:
    sizes = {subject.size: subject.label for subject in subjects}
    if len(sizes) > 1:
        told = ", ".join(f"{label} has {w}×{h}" for (h, w), label in sizes.items())
        raise ConfigError(f"videos of several sizes: {told}; compare those of one size")
    return subjects[0].size


def _most(subjects: Sequence[Subject], wanted: int, repeats: int, say: Say) -> int:
    """Return how many videos of each there are for a repeat; told where they are too few."""
    for subject in subjects:
        if subject.count is not None and subject.count < wanted * repeats:
            say(f"{subject.label} has {subject.count} of the {wanted * repeats} videos wanted")
    counts = [subject.count // repeats for subject in subjects if subject.count is not None]
    return min([wanted, *counts])
