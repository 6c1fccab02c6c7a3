"""What a worker does for a video that is made elsewhere: clips, decode windows, network calls.

Knows the request of a video and an open pipeline; nothing of who asks, or of other workers.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvdm_engines.backends.backend import CpuPrecision, Rounding
from lvdm_engines.errors import BackendError, BundleError
from lvdm_engines.manifest import TensorSpec
from lvdm_rt.decoding.autoencoder import Autoencoder
from lvdm_rt.long.sampling import SamplingRun, sample_clips
from lvdm_rt.long.videos import ClipWork
from lvdm_rt.pipeline import Pipeline
from lvdm_rt.progress import Counter
from lvdm_rt.request import Request
from lvdm_rt.running import sampling_run


class GraphTold(NamedTuple):
    """What there is to know of the session of a graph, for who cannot ask it."""

    backend: str
    precision: CpuPrecision | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class PieceMaker:
    """An open pipeline, and the run of the request that it was asked for last."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._request: Request | None = None
        self._run: SamplingRun | None = None

    def sample(self, request: Request, work: ClipWork) -> NDArray[np.float32]:
        """Return the new latents (b, c, t, h, w) of some clips.

        Raises NumericsError, SessionError; BundleError and BackendError where this is another model
        or another arithmetic than that of the request.
        """
        return sample_clips(self._run_of(request), work)

    def decode(self, request: Request, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the frames (f, h, w, 3) of one decode window (c, t, h', w'); raises likewise."""
        self._run_of(request)
        return Autoencoder(self.pipeline.model).decode_window(latents)

    def call(self, graph: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run a graph once."""
        return self.pipeline.model.session(graph).run(feeds)

    def told(self) -> dict[str, GraphTold]:
        """Return what graphs there are."""
        sessions = self.pipeline.model.sessions
        return {
            graph: GraphTold(
                session.backend,
                session.precision if isinstance(session, Rounding) else None,
                session.inputs,
                session.outputs,
            )
            for graph, session in sessions.items()
        }

    def _run_of(self, request: Request) -> SamplingRun:
        if self._run is None or request != self._request:
            pipeline = self.pipeline
            if request.manifest != pipeline.manifest:
                raise BundleError(
                    f"a worker has another bundle {pipeline.manifest.name} than this machine; copy "
                    "it to every machine, or put it where all can read it"
                )
            if request.backend != pipeline.arithmetic:
                raise BackendError(
                    f"one worker computes with {request.backend}, another with "
                    f"{pipeline.arithmetic}; choose with --backend and --precision, so that all do "
                    "the same"
                )
            # steps are counted where the clips are wanted
            self._run = sampling_run(
                request, pipeline.model, pipeline.text, Counter(0, 0, None), None
            )
            self._request = request
        return self._run
