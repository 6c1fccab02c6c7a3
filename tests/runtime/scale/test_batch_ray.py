"""A batch on a real cluster of several nodes in one machine, one of which is lost on the way."""

import threading
import time

import pytest
from toy_files import content, names

pytest.importorskip("ray")
pytest.importorskip("onnx")

from lvdm_engines.backends.backend import SessionOptions
from lvdm_rt.scale.batch import BatchAsk, planned
from lvdm_rt.scale.batch_away import on_cluster
from lvdm_rt.scale.cluster import ClusterOptions
from lvdm_rt.scale.worklist import ForAll

pytestmark = [
    pytest.mark.filterwarnings("default::ResourceWarning"),  # of Ray's own pipes and sockets
    pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
]
JOBS = 10
OPTIONS = {"frames": 100, "exact": True, "batch_size": 2, "sampler": "ddpm"}


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose first node takes no work; tests add others."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster()
        cluster.add_node(num_cpus=0, include_dashboard=False)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def nodes(cluster):
    """Two nodes for one worker each."""
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield nodes
    for node in nodes:
        cluster.remove_node(node)


def ask(out, bundle):
    return BatchAsk(
        source=range(JOBS),
        common=ForAll(out=out, options=OPTIONS, form="npz"),
        bundle=str(bundle),
        backend="cpu",
        session=SessionOptions(threads=1),
    )


@pytest.fixture(scope="module")
def here(toy, tmp_path_factory):
    """The videos that one process makes."""
    out = tmp_path_factory.mktemp("here") / "out"
    with planned(ask(out, toy)) as batch:
        assert all(record.status == "done" for record in batch.run())
    return videos(out)


def videos(folder):
    return {name: data for name, data in content(folder).items() if name != "batch.jsonl"}


def lose(cluster, nodes, ready):
    """Kill a node as soon as something is so."""
    while not ready():
        time.sleep(0.005)
    cluster.remove_node(nodes.pop(), allow_graceful=False)


@pytest.fixture
def losing(cluster, nodes, toy, tmp_path):
    """Make the batch, and kill a node once `ready(out)`; returns the videos."""

    def losing(ready, **how):
        out = tmp_path / "out"
        options = ClusterOptions(address=cluster.address, workers=2, cpus=1)
        killer = threading.Thread(target=lose, args=(cluster, nodes, lambda: ready(out)))
        killer.start()
        with planned(ask(out, toy)) as batch:
            workers = on_cluster(ask(out, toy), options, **how)
            records = list(batch.run(workers=workers))
        killer.join()
        assert [record.status for record in records] == ["done"] * JOBS
        assert [name for name in names(out) if name.startswith(".")] == []
        return videos(out)

    return losing


def clips(out):
    """Finished clips of units in hand."""
    return len(list(out.glob(".batch/*/video-*/*.npy")))


@pytest.mark.slow
@pytest.mark.parametrize("send_back", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_a_lost_node_costs_what_it_had_in_hand(losing, here, caplog, send_back):
    def ready(out):
        return len(list(out.glob("*.npz"))) >= 2

    assert losing(ready, send_back=send_back) == here
    assert "a worker was lost, and what it had in hand is done again" in caplog.text


@pytest.mark.exhaustive
@pytest.mark.parametrize("moment", range(10))
def test_a_node_may_be_lost_at_any_moment(losing, here, moment):
    assert losing(lambda out: clips(out) >= 2 * moment + 1) == here
