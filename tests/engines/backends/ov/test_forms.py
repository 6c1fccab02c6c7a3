"""Compiled forms that are made ahead because the last session used them."""

import threading

import pytest

pytest.importorskip("openvino")

from lvdm_engines.backends.ov import forms
from lvdm_engines.backends.ov.forms import Forms
from lvdm_engines.backends.user_folders import keep_cached

ONE, TWO, THREE = ({"x": (rows, 4)} for rows in (1, 2, 3))


class Source:
    bytes = 1000


class Recorded:
    """Stands for a compiler whose forms are the shapes they are for."""

    source, keeps = Source(), True

    def __init__(self):
        self.made, self.go = [], threading.Event()
        self.go.set()
        self.broken = set()

    def digest(self, shapes):
        return "of-a-graph"

    def request(self, shapes):
        self.go.wait(10)
        self.made.append((shapes, threading.current_thread() is threading.main_thread()))
        if shapes["x"][0] in self.broken:
            raise RuntimeError("no form for you")
        return shapes


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def join(made):
    for thread in made._threads:
        thread.join()


def used(*shapes):
    compiler = Recorded()
    made = Forms(compiler)
    for one in shapes:
        assert made.get(one) == one
    made.close()
    return compiler.made


def test_what_was_used_is_made_ahead_next_time_in_the_same_order():
    assert used(TWO, ONE, TWO) == [(TWO, True), (ONE, True)]
    compiler = Recorded()
    made = Forms(compiler)
    join(made)
    assert sorted(compiler.made, key=str) == [(ONE, False), (TWO, False)]
    assert made.get(ONE) == ONE
    assert made.get(THREE) == THREE
    assert compiler.made[2:] == [(THREE, True)]
    made.close()
    again = Recorded()
    Forms(again).close()
    assert [shapes for shapes, _ in again.made] in ([], [ONE], [ONE, THREE])  # those of the last


def test_nobody_waits_for_forms_that_are_made_before_theirs():
    used(ONE, TWO, THREE)
    compiler = Recorded()
    compiler.go.clear()
    made = Forms(compiler)  # its threads hang at ONE and TWO
    threading.Timer(0.2, compiler.go.set).start()
    assert made.get(THREE) == THREE
    made.close()
    assert (THREE, True) in compiler.made


def test_a_form_that_cannot_be_made_ahead_is_an_error_once_and_tried_anew():
    used(ONE)
    compiler = Recorded()
    compiler.broken = {1}
    made = Forms(compiler)
    join(made)
    with pytest.raises(RuntimeError, match="no form"):
        made.get(ONE)
    compiler.broken = set()
    assert made.get(ONE) == ONE
    made.close()


def test_closing_ends_what_has_not_begun():
    used(ONE, TWO, THREE)
    compiler = Recorded()
    compiler.go.clear()
    made = Forms(compiler)
    threading.Timer(0.2, compiler.go.set).start()
    made.close()
    assert {shapes["x"][0] for shapes, _ in compiler.made} <= {1, 2}
    assert not any(thread.is_alive() for thread in made._threads)


def test_without_a_thread_forms_are_made_when_they_are_needed(monkeypatch):
    used(ONE)

    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(forms.threading.Thread, "start", start)
    assert used(ONE, TWO) == [(ONE, True), (TWO, True)]


def test_a_record_that_cannot_be_read_counts_for_nothing():
    keep_cached("openvino/of-a-graph", b"[1]")
    assert used(ONE) == [(ONE, True)]


def test_graphs_too_large_to_keep_are_not_made_ahead(monkeypatch):
    monkeypatch.setattr(Recorded, "keeps", False)
    used(ONE)
    assert used(ONE) == [(ONE, True)]
