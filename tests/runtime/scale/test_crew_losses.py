"""Workers that are lost while they are idle, and a cluster that has gone: nobody waits."""

import time
from concurrent.futures import Future
from functools import partial
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from toy_pieces import hold_nothing, square

from lvdm_engines.errors import ClusterError
from lvdm_rt.scale.crew import MOST_LOSSES, Crew, Share


class FarError(Exception):
    """What calls of lost workers raise."""


class FarTaskError(FarError):
    """What pieces raise."""


class FarCluster:
    """Workers that answer at once, but for the `lost` ones, which never come back.

    `gone` is what asking whether they live raises.
    """

    exceptions = SimpleNamespace(RayError=FarError, RayTaskError=FarTaskError)

    def __init__(self):
        self.lost, self.gone, self.made = set(), None, 0

    def remote(self, **_):
        return lambda _: SimpleNamespace(remote=self._worker)

    def kill(self, _):
        pass

    def _worker(self, _):
        self.made += 1
        number = self.made
        run = SimpleNamespace(remote=partial(self._run, number))
        return SimpleNamespace(
            run=SimpleNamespace(options=lambda **_: run),
            version=SimpleNamespace(remote=partial(self._alive, number, version("lvdm-rt"))),
            open=SimpleNamespace(remote=partial(self._alive, number, None)),
        )

    def _run(self, number, function, *arguments):
        call = Future()
        if number in self.lost:
            call.set_exception(FarError("the worker has died"))
        else:
            call.set_result(function(None, *arguments))
        return SimpleNamespace(future=lambda: call)

    def _alive(self, number, told):
        if self.gone is not None:
            raise self.gone
        call = Future()
        if number not in self.lost:
            call.set_result(told)
        return SimpleNamespace(future=lambda: call)


@pytest.fixture
def far():
    return FarCluster()


@pytest.fixture
def crew(far):
    crew = Crew(far, Share(3 * MOST_LOSSES, 1, 0), hold_nothing)
    while crew.ready < crew.size:
        time.sleep(0.001)
    yield crew
    crew.close()


def test_a_node_of_many_idle_workers_costs_a_piece_once(crew, far):
    far.lost = set(range(1, 2 * MOST_LOSSES))
    assert [crew.submit(square, n).result(5) for n in (4, 5, 6)] == [16, 25, 36]
    assert crew.ready == MOST_LOSSES + 1


def test_a_cluster_that_has_gone_lets_nobody_wait(crew, far):
    far.lost, far.gone = {1}, RuntimeError("ray is not connected")
    for _ in range(2):
        with pytest.raises(ClusterError, match=r"does not answer \(ray is not connected\)"):
            crew.submit(square, 4).result(5)


def test_what_is_cancelled_keeps_nobody_from_being_told(crew, far):
    far.lost, far.gone = {1}, RuntimeError("ray is not connected")
    futures = [crew.submit(square, 4) for _ in range(20)]
    for future in futures[::2]:
        future.cancel()
    for future in futures[1::2]:
        assert isinstance(future.exception(5), ClusterError | None)


def test_a_cluster_that_goes_before_a_worker_is_ready_is_told(far):
    far.lost = {1, 2}
    crew = Crew(far, Share(2, 1, 0), hold_nothing)
    crew._events.put(partial(crew._await, SimpleNamespace()))  # as of an actor that is none
    with pytest.raises(ClusterError, match="does not answer"):
        crew.await_first(5)
    crew.close()
