"""Clusters of several nodes in one machine, and what their workers hold: models of arrays."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from toy_arrays import make_manifest, make_sessions
from toy_files import with_tests_on_path

from lvdm_rt import Pipeline
from lvdm_rt.scale.cluster import ClusterOptions, connect, load_ray
from lvdm_rt.scale.crew import Crew
from lvdm_rt.scale.maker import PieceMaker
from lvdm_rt.scale.remote import pool_pipeline

UNITS = {"predict": 4.0, "interpolate": 5.0}  # latents of a clip; a unit is a latent's time
WINDOW = 20.0  # units of a decode window: so the chain is 14 % of what a long video takes


@dataclass(frozen=True)
class ToyOpening:
    """Opens the model of arrays, whose networks rest `unit` seconds for each latent of a row."""

    unit: float = 0.0

    def __call__(self) -> PieceMaker:
        """Open it."""
        manifest = make_manifest()
        sessions = make_sessions(manifest)
        for session in sessions.values():
            session.jitter = True
            session.hook = lambda _, session=session: time.sleep(self.unit * _cost(session))
        return PieceMaker(Pipeline(manifest, sessions))


def _cost(session: Any) -> float:
    return UNITS.get(session.graph, 0.0) * session.rows[-1] or WINDOW


class ToyNodes:
    """A cluster whose nodes can be lost and added while it works."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.nodes: list[Any] = []
        self.address = str(cluster.address)

    def add(self, cpus: int = 1) -> None:
        """Start a node, on which there is room for so many workers."""
        self.nodes.append(self._cluster.add_node(num_cpus=cpus))

    def lose(self) -> None:
        """Kill every process of the newest node, as a loss of power would."""
        self._cluster.remove_node(self.nodes.pop(), allow_graceful=False)


@contextmanager
def nodes(count: int, cpus: int = 1) -> Iterator[ToyNodes]:
    """Give a cluster of so many nodes beside its head, which does no work."""
    os.environ |= {"PYTHONPATH": with_tests_on_path()["PYTHONPATH"]}
    load_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        made = ToyNodes(cluster)
        for _ in range(count):
            made.add(cpus)
        yield made
    finally:
        cluster.shutdown()


@contextmanager
def crew_on(found: ToyNodes, workers: int, opening: Any) -> Iterator[Crew]:
    """Give workers on a cluster, all of them ready."""
    options = ClusterOptions(address=found.address, workers=workers, cpus=1)
    with connect(options, lambda _: opening) as crew:
        await_workers(crew, workers)
        yield crew


def await_workers(crew: Crew, count: int) -> None:
    """Wait until so many workers are ready."""
    ends = time.monotonic() + 300
    while crew.ready < count:
        if time.monotonic() > ends:
            raise TimeoutError(f"{crew.ready} of {count} workers are ready")
        time.sleep(0.05)


def toy_pipeline(crew: Crew) -> Pipeline:
    """Return a pipeline of the model of arrays whose work a crew does."""
    return pool_pipeline(make_manifest(), None, crew)
