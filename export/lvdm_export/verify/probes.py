"""Inputs that try a graph: random ones and extreme ones, a pure function of the graph's name.

They can be made again wherever the bundle is, so a manifest only needs to keep the answers.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.contract import graph_tensors
from lvdm_engines.manifest import ModelFacts, TensorSpec
from lvdm_engines.session import Session

VERSION = 1  # of the rule below; answers recorded under another one cannot be compared
DISTINCT = 2  # rows that differ: a random and an extreme one
_SATURATED = 5.0  # standard deviations; latents of a diffusion chain stay within about 4
_TOKENS = 49408  # size of the text encoder's vocabulary

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
    """Return how many latents a clip of the graph `name` has."""
    return int(getattr(getattr(model, name, None), "clip", model.decode_window))


def make_probes(
    name: str, inputs: tuple[TensorSpec, ...], model: ModelFacts, count: int
) -> list[Probe]:
    """Make `count` probes for the graph `name`; even ones saturate high, odd ones low."""
    return [_probe(name, inputs, model, index) for index in range(count)]


def _probe(name: str, inputs: tuple[TensorSpec, ...], model: ModelFacts, index: int) -> Probe:
    required, optional, _ = graph_tensors(name, model)
    shapes = {spec.name: spec.shape[1:] for spec in (*required, *optional)}  # nothing is free
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(f"{name} {index}".encode())))
    feeds = {}
    for spec in inputs:
        shape = tuple(map(int, shapes[spec.name]))
        random, extreme = _row(rng, spec.name, shape, (model, index % 2 == 0))
        feeds[spec.name] = np.stack([random, extreme, random]).astype(spec.dtype)
    return Probe(feeds)


def _row(
    rng: np.random.Generator, tensor: str, shape: tuple[int, ...], limits: tuple[ModelFacts, bool]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a random and an extreme row of one input."""
    model, high = limits
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
    if tensor == "tokens":
        return rng.integers(0, _TOKENS, shape), np.full(shape, _TOKENS - 1 if high else 0)
    return rng.standard_normal(shape), _SATURATED * np.sign(rng.standard_normal(shape))
