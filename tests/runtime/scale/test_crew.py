"""Pieces of work are done once, whichever worker is lost, and errors come as they are."""

import itertools
import threading
import time

import pytest
from toy_pieces import echo, hold_badly, hold_nothing, square
from toy_ray import LostError, ToyRay

from lvdm_engines.errors import BundleError, ClusterError, LvdmError
from lvdm_rt.scale import crew as crews
from lvdm_rt.scale.crew import Crew, Outcome, Share


@pytest.fixture
def make_crew():
    made = []

    def make(workers=2, opening=hold_nothing, ray=None):
        made.append(Crew(ray or ToyRay(), Share(workers, 1, 0), opening))
        return made[-1]

    yield make
    for crew in made:
        crew.close()


class Losing:
    """A piece that loses its worker the first `times`."""

    def __init__(self, times):
        self.left = times

    def __call__(self, _, what="done"):
        if self.left:
            self.left -= 1
            raise LostError
        return what


def test_every_unit_comes_back_with_its_result_or_its_error(make_crew):
    outcomes = sorted(make_crew(3).map(square, range(6)), key=lambda outcome: outcome.unit)
    assert [o.result for o in outcomes] == [0, 1, 4, None, 16, 25]
    assert [type(o.error) for o in outcomes if o.error] == [BundleError]


def test_units_without_end_are_taken_as_workers_become_idle(make_crew):
    taken = itertools.count()
    outcomes = make_crew(2).map(square, (next(taken) % 3 for _ in itertools.count()))
    for _ in range(5):
        next(outcomes)
    outcomes.close()
    assert next(taken) <= 5 + 2 + 2


def test_workers_are_restarted_and_hold_what_is_asked_for(make_crew):
    ray = ToyRay()
    make_crew(ray=ray)
    assert ray.asked == {"num_cpus": 1, "num_gpus": 0, "max_restarts": -1, "max_task_retries": -1}


def test_what_a_lost_worker_had_in_hand_is_done_by_another(make_crew, caplog):
    started = threading.Semaphore(2)  # two workers start, and none again
    crew = make_crew(2, ray=ToyRay(started.acquire))
    assert crew.submit(Losing(1)).result(5) == "done"
    assert sorted(o.result for o in crew.map(echo, "abcd")) == list("abcd")
    assert crew.ready == 1
    assert caplog.messages == ["a worker was lost, and what it had in hand is done again"]
    started.release()
    until(lambda: crew.ready == 2)


def test_a_worker_that_comes_back_works_again(make_crew):
    crew = make_crew(1)
    assert crew.submit(Losing(3)).result(5) == "done"


def test_a_piece_over_which_every_worker_is_lost_is_given_up(make_crew, monkeypatch):
    monkeypatch.setattr(crews, "MOST_LOSSES", 3)
    crew = make_crew(2)
    with pytest.raises(ClusterError, match=r"3 workers were lost over the same piece .*particular"):
        crew.submit(Losing(9)).result(5)
    assert crew.submit(echo, "still").result(5) == "still"


def test_what_keeps_the_first_worker_from_starting_is_raised_as_it_is(make_crew):
    crew = make_crew(2, hold_badly)
    with pytest.raises(BundleError, match="nowhere"):
        crew.await_first(5)
    until(lambda: not crew._actors)
    with pytest.raises(BundleError, match="nowhere"):
        crew.submit(echo, 1).result(5)


def test_a_worker_without_this_package_is_told_in_a_line(make_crew):
    def hold():
        raise ModuleNotFoundError("No module named 'lvdm_rt'", name="lvdm_rt")

    with pytest.raises(ClusterError, match=r"cannot start \(No module .* every machine\?"):
        make_crew(1, hold).await_first(5)


def test_a_worker_of_another_version_does_no_work(make_crew, monkeypatch):
    class Older(crews.ClusterWorker):
        def version(self):
            return "0.0.9"

    monkeypatch.setattr(crews, "ClusterWorker", Older)
    with pytest.raises(ClusterError, match=r"a worker has lvdm-rt 0.0.9, this machine .*install"):
        make_crew(1).await_first(5)


def test_no_room_for_any_worker_is_told_after_a_while(make_crew):
    nobody = threading.Event()
    crew = make_crew(1, ray=ToyRay(nobody.wait))
    with pytest.raises(
        ClusterError,
        match=r"no room for a worker within 0 s: each needs 1 CPU cores, .* 3 CPU cores and",
    ):
        crew.await_first(0.05)
    nobody.set()


def test_a_worker_may_take_long_to_open_what_it_holds(make_crew):
    crew = make_crew(1, lambda: time.sleep(0.2) or "held")
    crew.await_first(0.1)
    assert crew.submit(lambda held: held).result(5) == "held"


def test_what_cannot_be_pickled_is_an_error_of_its_piece_alone(make_crew):
    crew = make_crew(1)
    with pytest.raises(TypeError, match="pickle"):
        crew.submit(echo, (x for x in "abc")).result(5)
    assert crew.submit(echo, 1).result(5) == 1


def test_a_piece_that_is_cancelled_before_it_begins_is_not_done(make_crew):
    begin, done = threading.Event(), []
    crew = make_crew(1)
    first = crew.submit(lambda _: begin.wait())
    second = crew.submit(lambda _: done.append(2))
    third = crew.submit(lambda _: done.append(3))
    until(first.running)
    second.cancel()
    begin.set()
    third.result(5)
    assert done == [3]


def test_closing_leaves_nobody_waiting(make_crew):
    ray, forever = ToyRay(), threading.Event()
    crew = make_crew(1, ray=ray)
    pieces = [crew.submit(lambda _: forever.wait(5)) for _ in range(2)]
    until(pieces[0].running)
    crew.close()
    for piece in pieces:
        with pytest.raises(ClusterError, match="were ended"):
            piece.result(5)
    with pytest.raises(ClusterError, match="were ended"):
        crew.submit(echo, 1).result(5)
    assert len(ray.killed) == 1
    forever.set()


def test_an_outcome_tells_its_unit(make_crew):
    assert list(make_crew(1).map(echo, ["a"])) == [Outcome("a", "a")]
    assert issubclass(ClusterError, LvdmError)


def until(holds):
    ends = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.005)
