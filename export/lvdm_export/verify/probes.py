"""Inputs that try a graph: random ones and extreme ones, a pure function of the graph's name.

They can be made again wherever the bundle is, so a manifest only needs to keep the answers.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.contract import graph_tensors
from lvdm_engines.manifest import Manifest, ModelFacts, TensorSpec
from lvdm_engines.session import Session

VERSION = 1  # of the rule below; answers recorded under another one cannot be compared
DISTINCT = 2  # rows that differ: a random and an extreme one
_SATURATED = 5.0  # standard deviations; latents of a diffusion chain stay within about 4

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Probe:
    """A batch of three rows: a random one, an extreme one, and the random one again."""

    feeds: Feeds

    def rows(self, start: int, stop: int) -> Feeds:
        """Return part of the batch."""
        return {name: array[start:stop] for name, array in self.feeds.items()}


def answer_of(session: Session, feeds: Feeds) -> NDArray[np.float64]:
    """Run an open graph and return its first output."""
    return np.asarray(session.run(feeds)[session.outputs[0].name], np.float64)


def clip_of(model: ModelFacts, name: str) -> int:
    """Return how many latents the longest clip of the graph `name` has."""
    return max(model.clips(name), default=model.decode_window)


@dataclass(frozen=True)
class _Limits:
    """What numbers of the inputs may be, and which end an extreme row takes."""

    model: ModelFacts
    vocabulary: int
    high: bool


def probes_of(manifest: Manifest, name: str, count: int) -> list[Probe]:
    """Make `count` probes for a graph of a bundle."""
    known = 1 if manifest.tokenizer is None else manifest.tokenizer.vocabulary
    return make_probes(name, manifest.graphs[name].inputs, manifest.model, count, known)


def make_probes(
    name: str,
    inputs: tuple[TensorSpec, ...],
    model: ModelFacts,
    count: int,
    vocabulary: int = 1,
) -> list[Probe]:
    """Make `count` probes for the graph `name`; even ones saturate high, odd ones low.

    Tokens, where they are an input, lie below `vocabulary`.
    """
    limits = [_Limits(model, vocabulary, index % 2 == 0) for index in range(count)]
    return [_probe(name, inputs, each, index) for index, each in enumerate(limits)]


def _probe(name: str, inputs: tuple[TensorSpec, ...], limits: _Limits, index: int) -> Probe:
    required, optional, _ = graph_tensors(name, limits.model)
    shapes = {spec.name: spec.shape[1:] for spec in (*required, *optional)}  # nothing is free
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(f"{name} {index}".encode())))
    feeds = {}
    for spec in inputs:
        shape = tuple(map(int, shapes[spec.name]))
        random, extreme = _row(rng, spec.name, shape, limits)
        feeds[spec.name] = np.stack([random, extreme, random]).astype(spec.dtype)
    return Probe(feeds)


def _row(
    rng: np.random.Generator, tensor: str, shape: tuple[int, ...], limits: _Limits
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a random and an extreme row of one input."""
    model, high = limits.model, limits.high
    if tensor == "frames":
        return rng.integers(0, 256, shape), 255 * rng.integers(0, 2, shape)
    if tensor == "mask":
        return rng.integers(0, 2, shape), np.full(shape, int(high))
    if tensor == "timestep":
        top = model.schedule.steps - 1
        return rng.integers(0, top + 1, shape), np.full(shape, top if high else 0)
    if tensor == "noise_level":
        top = (model.noise_levels or 1) - 1
        return rng.integers(-1, top + 1, shape), np.full(shape, top if high else -1)
    if tensor == "stride":
        top = model.predict.stride if model.predict else 1
        return rng.integers(1, top + 1, shape), np.full(shape, top if high else 1)
    if tensor == "tokens":
        top = limits.vocabulary - 1
        return rng.integers(0, top + 1, shape), np.full(shape, top if high else 0)
    return rng.standard_normal(shape), _SATURATED * np.sign(rng.standard_normal(shape))
