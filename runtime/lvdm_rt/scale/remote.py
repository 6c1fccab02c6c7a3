"""A pipeline whose work is done by the workers of a cluster: opened here, computed there.

Knows clusters and pipelines; nothing of flags or files of videos.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from lvdm_engines.backends.backend import CpuPrecision, SessionOptions
from lvdm_engines.bundle import Bundle, builtin_bundles, load_bundle
from lvdm_engines.manifest import Manifest
from lvdm_engines.opening import tell_choices
from lvdm_rt.pipeline import Pipeline
from lvdm_rt.scale.cluster import ClusterOptions, connect
from lvdm_rt.scale.crew import Share
from lvdm_rt.scale.maker import GraphTold, PieceMaker
from lvdm_rt.scale.spread import Pool, spread
from lvdm_rt.text.tokenizer import load_tokenizer


class RemoteSession:
    """A graph that is open in every worker: each run is a piece of work for one of them."""

    precision: CpuPrecision  # where the graph has a choice

    def __init__(self, pool: Pool, graph: str, told: GraphTold) -> None:
        self._pool, self._graph = pool, graph
        self.backend, self.inputs, self.outputs = told.backend, told.inputs, told.outputs
        if told.precision is not None:
            self.precision = told.precision

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs; raises what the worker raises."""
        outputs: dict[str, NDArray[Any]] = self._pool.submit(
            PieceMaker.call, self._graph, feeds
        ).result()
        return outputs

    def close(self) -> None:
        """Do nothing: the session is the workers'."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


@contextmanager
def spread_pipeline(
    bundle: str | Path | Bundle = "sky-tiny",
    backend: str = "auto",
    session: SessionOptions | None = None,
    cluster: ClusterOptions | None = None,
) -> Iterator[Pipeline]:
    """Open a pipeline that lets workers of a cluster sample and decode, many at once.

    It is used like any other, and makes the same videos. What is not a video, such as `encode`, is
    done by one worker at a time. Workers open the bundle by its name, or at the same path.

    Raises what `connect` and `Pipeline.open` raise.
    """
    found = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    place = place_of(found)
    tokenizer = load_tokenizer(found) if found.manifest.tokenizer else None
    with (
        connect(
            cluster or ClusterOptions(),
            lambda share: partial(open_maker, place, backend, fitted(session, share)),
        ) as crew,
        pool_pipeline(found.manifest, tokenizer, crew) as pipeline,
    ):
        yield pipeline


def pool_pipeline(manifest: Manifest, tokenizer: Any, pool: Pool) -> Pipeline:
    """Return a pipeline that lets a pool do its work, whose workers have that model open."""
    told = pool.submit(PieceMaker.told).result()
    chosen: dict[str, list[str]] = {}
    for graph, facts in told.items():
        chosen.setdefault(f"{facts.backend}, in the workers", []).append(graph)
    tell_choices(chosen)
    sessions = {graph: RemoteSession(pool, graph, facts) for graph, facts in told.items()}
    return Pipeline(manifest, sessions, tokenizer, making=partial(spread, pool))


def open_maker(place: str, backend: str, options: SessionOptions) -> PieceMaker:
    """Open what a worker holds. Raises BundleError, BackendError."""
    return PieceMaker(Pipeline.open(place, backend, options))


def place_of(bundle: Bundle) -> str:
    """Return what a worker finds a bundle by: the name of a built-in one, else the whole path."""
    names = {path: name for name, path in builtin_bundles().items()}
    return names.get(bundle.path, str(bundle.path.resolve()))


def fitted(options: SessionOptions | None, share: Share) -> SessionOptions:
    """Return the options of a worker: the only GPU that it sees, or as many threads as it has."""
    options = options or SessionOptions()
    if share.gpus:
        return replace(options, device=0)
    return options if options.threads else replace(options, threads=share.cpus)
