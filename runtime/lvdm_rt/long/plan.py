"""Which clips make a long video, and in which order: pure arithmetic.

Positions count latents: the first new one is 0, latents of a condition video lie before it
(-1 is the last). Keyframe k lies at position k * stride + offset, where the offset is stride - 1
if the video continues a condition (whose last latent is keyframe -1) and 0 if not. Gap k is what
lies between keyframes k - 1 and k. Nothing here grows with the length of the video.

With stride 4, clips of 4 keyframes of which 1 is given, gaps infilled by clips of 5:

    new video        K0 . . . K1 . . . K2 . . . K3 . . . K4 …     first clip: K0 K1 K2 K3
                     0        4        8        12       16       next clip:  K3 (given) K4 K5 K6
                        gap 1    gap 2    gap 3    gap 4          gap 2: K1 (given) . . . K2 (given)

    continued  c c c K-1 . . . K0 . . . K1 . . . K2 …             K-1: last latent of the condition
    (lead = 2) -3 … -1  0      3        7        11               first clip: K-1 (given) K0 K1 K2
                   ^^^ the first decode window starts here, two latents into the condition
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lvdm_engines.errors import PlanError
from lvdm_engines.manifest import ModelFacts
from lvdm_rt.diffusion.noise import Site, Stage
from lvdm_rt.options import Mode


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


class Clip(NamedTuple):
    """One window of a network: new keyframes from `first` on, after `given` known ones."""

    first: int
    new: int
    given: int


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """The clips of one video.

    `frames` are delivered, `latents` sampled (at least as many, so that decode windows fit);
    `given` latents of the condition are kept: `given_keys` of them at keyframe distance for the
    first clip, and `lead` of them for the first decode window. `refines` asks for a second pass
    over the keyframes between two gaps.
    """

    frames: int
    latents: int
    stage: Stage
    clip: int
    condition: int
    stride: int
    given_keys: int
    lead: int
    refines: bool = False

    @property
    def given(self) -> int:
        """Latents of the condition that are needed, counted from its end."""
        span = (self.given_keys - 1) * self.stride + 1 if self.given_keys else 0
        return max(span, self.lead)

    @property
    def keys(self) -> int:
        """Keyframes to sample; some of the last clip may be left over."""
        return max(0, ceil_div(self.latents - 1 - self._offset, self.stride)) + 1

    @property
    def clips(self) -> int:
        """Clips in the chain of keyframes."""
        rest = self.keys - (self.clip - self.given_keys)
        return 1 + max(0, ceil_div(rest, self.clip - self.condition))

    @property
    def gaps(self) -> range:
        """The gaps to infill, each named by the keyframe at its end."""
        if self.stride == 1:
            return range(0)
        return range(0 if self.given_keys else 1, self.keys)

    @property
    def refined(self) -> range:
        """The keyframes that a second pass samples again, with the neighbours on both sides."""
        return self.gaps[:-1] if self.refines else range(0)

    @property
    def counts(self) -> dict[Stage, int]:
        """Clips by their stage, of those stages that the video has."""
        counts = {
            self.stage: self.clips,
            Stage.INFILL: len(self.gaps),
            Stage.REFINE: len(self.refined),
        }
        return {stage: count for stage, count in counts.items() if count}

    @property
    def _offset(self) -> int:
        return self.stride - 1 if self.given_keys else 0

    def position(self, key: int) -> int:
        """Return the position of a keyframe."""
        return key * self.stride + self._offset

    def refined_at(self, position: int) -> tuple[int, int] | None:
        """Return the refined keyframe that a position lies nearest to, and which of its window.

        The window of a keyframe begins half a stride before it; its ends, which it shares with
        those beside it, are left as they are and belong to none.
        """
        key, index = divmod(position - self.window(0), self.stride)
        return (key, index) if index and key in self.refined else None

    def window(self, key: int) -> int:
        """Return where the window of a refined keyframe begins, stride + 1 latents long."""
        return self.position(key) - self.stride // 2

    def chain(self, index: int) -> Clip:
        """Return clip `index` of the chain of keyframes."""
        start = self.clip - self.given_keys  # new keyframes of the first clip
        if index == 0:
            return Clip(0, start, self.given_keys)
        new = self.clip - self.condition
        return Clip(start + (index - 1) * new, new, self.condition)

    def clip_of(self, key: int) -> int:
        """Return which clip of the chain makes a keyframe; the first for one that is given."""
        start, new = self.clip - self.given_keys, self.clip - self.condition
        return max(0, ceil_div(key + 1 - start, new))


class ClipBatch(NamedTuple):
    """Clips of one kind that do not depend on each other: one batch."""

    stage: Stage
    sites: tuple[Site, ...]


def plan(
    frames: int,
    model: ModelFacts,
    mode: Mode = "hierarchical",
    overlap: int = 0,
    given: int = 0,
    *,
    refines: bool = False,
) -> ClipPlan:
    """ClipPlan a video of `frames` new frames after `given` latents of a condition video.

    The number of latents is rounded up to whole decode windows that share `overlap` latents, so
    that every window is decoded at the length it was trained for.

    Raises PlanError if the model cannot make such a video.
    """
    per_latent, window = model.frames_per_latent, model.decode_window
    needed = ceil_div(frames, per_latent)
    lead = min(overlap, given)
    windows = max(1, ceil_div(lead + needed - overlap, window - overlap))
    latents = windows * (window - overlap) + overlap - lead
    if mode == "short":
        return _short(frames, needed, latents, model, given)
    if model.predict is None:
        raise PlanError(
            f"mode {mode} needs a predict graph, which this bundle has not; use short, of one clip"
        )
    if mode == "hierarchical" and model.interpolate is None:
        raise PlanError("mode hierarchical needs an interpolate graph; use mode autoregressive")
    stride = model.predict.stride if mode == "hierarchical" else 1
    return ClipPlan(
        frames=frames,
        latents=latents,
        stage=Stage.PREDICT,
        clip=model.predict.clip,
        condition=model.predict.condition,
        stride=stride,
        given_keys=min(model.predict.condition, ceil_div(given, stride)),
        lead=lead,
        refines=refines,
    )


def _short(frames: int, needed: int, latents: int, model: ModelFacts, given: int) -> ClipPlan:
    if model.short is None:
        raise PlanError("mode short needs a short graph, which this bundle has not")
    longest = model.short.clip * model.frames_per_latent
    if needed > model.short.clip:
        raise PlanError(
            f"got {frames} frames in mode short, which makes at most {longest}; "
            "ask for fewer or use mode hierarchical with a bundle that has it"
        )
    if given:
        way = (
            "use another mode" if model.predict else "that needs a predict graph, which it has not"
        )
        raise PlanError(f"mode short cannot continue a video; {way}")
    clip = model.short.clip
    return ClipPlan(
        frames=frames,
        latents=min(latents, clip),
        stage=Stage.SHORT,
        clip=clip,
        condition=0,
        stride=1,
        given_keys=0,
        lead=0,
    )


def needed_condition(model: ModelFacts, mode: Mode, overlap: int) -> int:
    """Return how many latents of a condition video can matter, at least one decode window."""
    if mode == "short" or model.predict is None:
        return model.decode_window
    stride = model.predict.stride if mode == "hierarchical" else 1
    span = (model.predict.condition - 1) * stride + 1
    return max(span, overlap, model.decode_window)


def batches(plan: ClipPlan, videos: Sequence[int], batch_size: int) -> Iterator[ClipBatch]:
    """Yield the batches of all videos; each needs only what came before it.

    Groups of up to `batch_size` videos advance together. The first gaps are infilled as soon as
    their keyframes exist, those that the first frames need alone, later gaps when they fill a
    batch; keyframes are refined likewise, once the gaps beside them are there. The grouping
    depends on nothing but the arguments, so that a resumed run calls the networks in the same
    batches.
    """
    for start in range(0, len(videos), batch_size):
        yield from _group(plan, videos[start : start + batch_size], batch_size)


def _group(plan: ClipPlan, videos: Sequence[int], batch_size: int) -> Iterator[ClipBatch]:
    pending: deque[Site] = deque()
    keys: deque[Site] = deque()  # to refine: the gaps on both sides are there
    for index in range(plan.clips):
        yield ClipBatch(plan.stage, tuple(Site(video, plan.stage, index) for video in videos))
        clip = plan.chain(index)
        for gap in range(clip.first, clip.first + clip.new):
            if gap in plan.gaps:
                pending.extend(Site(video, Stage.INFILL, gap) for video in videos)
        size = _first_gaps(plan, len(videos), batch_size) if index == 0 else batch_size
        least = 1 if index in (0, plan.clips - 1) else batch_size
        while len(pending) >= least:
            gaps = _take(pending, size)
            yield ClipBatch(Stage.INFILL, gaps)
            keys.extend(
                Site(gap.video, Stage.REFINE, gap.clip - 1)
                for gap in gaps
                if gap.clip - 1 in plan.refined
            )
            size = batch_size
            while len(keys) >= least:
                yield ClipBatch(Stage.REFINE, _take(keys, batch_size))


def _first_gaps(plan: ClipPlan, videos: int, batch_size: int) -> int:
    """Return how many gaps the first frames of all videos need."""
    return min(2 * videos, batch_size) if plan.refined else videos


def _take(pending: deque[Site], most: int) -> tuple[Site, ...]:
    return tuple(pending.popleft() for _ in range(min(most, len(pending))))
