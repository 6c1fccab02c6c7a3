"""What is measured of ours, and for how long; inputs of its graphs, and one run of one of them.

Free of torch, whose memory would be taken for ours.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import Bundle, load_bundle
from lvdm_engines.opening import open_session
from lvdm_export.verify.probes import probes_of

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds per matrix product and call of a graph, and per whole video.

    Videos of `frames` take `steps` beside the authors' code; growth goes over these lengths, and
    numbers of clips and of videos.
    """

    call_seconds: float
    video_seconds: float
    frames: int
    steps: int
    lengths: tuple[int, ...]
    numbers: tuple[int, ...]
    compiled: bool
    rounds: int = 5  # of a graph's calls, at least


@dataclass(frozen=True)
class Ours:
    """A bundle and the backends, with their options, that are measured with it."""

    bundle: Bundle
    backends: tuple[str, ...]
    options: SessionOptions


def random_feeds(bundle: Bundle, graph: str, batch: int) -> Feeds:
    """Return random inputs of a graph, the same in every row."""
    probe = probes_of(bundle.manifest, graph, 1)[0]
    row = np.zeros(batch, np.int64)  # the random row, as often as needed
    return {name: array[row] for name, array in probe.feeds.items()}


def run_once(folder: Path, graph: str, backend: str, options: SessionOptions) -> dict[str, Any]:
    """Open a graph and run it at batch 1: for a process of its own."""
    bundle = load_bundle(folder)
    with open_session(bundle, graph, backend, options) as session:
        session.run(random_feeds(bundle, graph, 1))
    return {}
