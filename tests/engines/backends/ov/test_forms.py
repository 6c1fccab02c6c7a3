"""Compiled forms that are read ahead because the last session used them."""

import gc
import threading
import time

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

    source, keeps, threads = Source(), True, None

    def __init__(self):
        self.read, self.made, self.go = [], [], threading.Event()
        self.go.set()
        self.unread = ()

    def digest(self, shapes):
        return "of-a-graph"

    def kept(self, shapes):
        self.go.wait(10)
        self.read.append(shapes)
        if shapes["x"][0] in self.unread:
            raise MemoryError("not now")
        return shapes

    def request(self, shapes):
        self.made.append(shapes)
        return shapes


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def used(*shapes):
    """Use forms in a session of their own; returns those that were made, not read ahead."""
    compiler = Recorded()
    made = Forms(compiler)
    made.read_ahead()
    for one in shapes:
        assert made.get(one) == one
    made.close()
    return compiler.made


def begun(compiler):
    made = Forms(compiler)
    made.read_ahead()
    return made


def join(made):
    for thread in made._threads:
        thread.join()


def test_what_was_used_is_read_ahead_next_time():
    assert used(TWO, ONE, TWO) == [TWO, ONE]
    compiler = Recorded()
    made = begun(compiler)
    join(made)
    assert sorted(compiler.read, key=str) == [ONE, TWO]
    assert (made.get(ONE), made.get(THREE), made.get(ONE)) == (ONE, THREE, ONE)
    assert compiler.made == [THREE]
    made.close()
    again = Recorded()
    join(begun(again))
    assert sorted(again.read, key=str) == [ONE, THREE]  # those of the last time alone


def test_nothing_is_read_unless_it_is_asked_for():
    used(ONE)
    compiler = Recorded()
    made = Forms(compiler)
    made.get(TWO)
    made.close()
    assert compiler.read == []
    again = Recorded()
    join(begun(again))
    assert again.read == [ONE]  # nor remembered


def test_nobody_waits_for_forms_that_are_read_before_theirs():
    used(ONE, TWO, THREE)
    compiler = Recorded()
    compiler.go.clear()
    made = begun(compiler)  # its threads hang at ONE and TWO
    assert made.get(THREE) == THREE
    assert compiler.made == [THREE]
    compiler.go.set()
    made.close()
    assert THREE not in compiler.read


def test_one_thread_reads_where_one_computes():
    used(ONE, TWO)
    compiler = Recorded()
    compiler.threads = 1
    made = begun(compiler)
    assert len(made._threads) == 1
    made.close()


def test_what_cannot_be_read_ahead_is_made_when_it_is_needed():
    used(ONE)
    compiler = Recorded()
    compiler.unread = (1,)
    made = begun(compiler)
    join(made)
    assert made.get(ONE) == ONE
    assert compiler.made == [ONE]
    made.close()


def test_closing_ends_what_has_not_begun():
    used(ONE, TWO, THREE)
    compiler = Recorded()
    compiler.go.clear()
    made = begun(compiler)
    threading.Timer(0.2, compiler.go.set).start()
    made.close()
    assert len(compiler.read) <= 2
    assert not any(thread.is_alive() for thread in made._threads)


def test_letting_go_without_closing_ends_what_has_not_begun():
    used(ONE, TWO, THREE)
    compiler = Recorded()
    compiler.go.clear()
    made = begun(compiler)
    threads = made._threads
    until = time.monotonic() + 5
    while sum(form.running() for form in made._ahead.values()) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    del made
    gc.collect()
    compiler.go.set()
    for thread in threads:
        thread.join(5)
    assert len(compiler.read) == 2


def test_without_a_thread_forms_are_made_when_they_are_needed(monkeypatch):
    used(ONE)

    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(forms.threading.Thread, "start", start)
    assert used(ONE, TWO) == [ONE, TWO]


def test_a_record_that_cannot_be_read_counts_for_nothing():
    keep_cached("openvino/of-a-graph", b"[1]")
    assert used(ONE) == [ONE]


def test_graphs_too_large_to_keep_are_not_read_ahead(monkeypatch):
    monkeypatch.setattr(Recorded, "keeps", False)
    used(ONE)
    assert used(ONE) == [ONE]


def test_no_more_forms_are_kept_than_the_limit_those_read_ahead_included(monkeypatch):
    used(ONE, TWO, THREE)
    monkeypatch.setattr(forms, "_MOST", 3)
    made = begun(Recorded())
    join(made)
    for rows in (4, 5, 6, 7):
        made.get({"x": (rows, 4)})
        assert len(made._made) + len(made._ahead) <= 3
    assert [shapes["x"][0] for shapes in made._made.values()] == [5, 6, 7]
    made.close()
