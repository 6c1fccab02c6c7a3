"""What differs from other sessions, which `test_session` tries on this backend too."""

import threading

import numpy as np
import pytest
import toy

pytest.importorskip("openvino")

from lvdm_engines.backends.backend import Rounding, SessionOptions
from lvdm_engines.backends.ov import forms
from lvdm_engines.backends.ov.compile import Compiler
from lvdm_engines.backends.ov.precision import choose_precision
from lvdm_engines.bundle import builtin_bundles, load_bundle
from lvdm_engines.opening import open_session, open_sessions

OPTIONS = SessionOptions(threads=1, precision="f32")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/lvdm-rt/openvino"


@pytest.fixture
def read(monkeypatch):
    """The names under which compiled forms were looked for, and whether they were there."""
    found = {}
    whole = Compiler._read

    def read(self, name):
        compiled = whole(self, name)
        found[name] = compiled is not None
        return compiled

    monkeypatch.setattr(Compiler, "_read", read)
    return found


def opened(bundle, options=OPTIONS):
    return open_session(bundle, "predict", "openvino", options)


def test_each_set_of_shapes_is_compiled_once_and_read_by_the_next_session(make_bundle, cache, read):
    bundle = make_bundle()
    with opened(bundle) as session:
        for feeds in (toy.feeds(2), toy.feeds(3), toy.feeds(2)):
            np.testing.assert_array_equal(session.run(feeds)["eps"], toy.eps(feeds))
    assert list(read.values()) == [False, False]
    with opened(bundle) as session:
        np.testing.assert_array_equal(session.run(toy.feeds(3))["eps"], toy.eps(toy.feeds(3)))
    assert sorted(read.values()) == [False, True]
    assert len(list(cache.iterdir())) == 2


def test_sessions_of_a_model_read_ahead_what_its_last_ones_used(make_bundle, cache, read):
    bundle = make_bundle()
    for _ in range(2):
        sessions = open_sessions(bundle, ["predict"], "openvino", OPTIONS)
        with sessions["predict"] as session:
            session.run(toy.feeds(2))
    assert len(list(cache.iterdir())) == 2  # a form, and that it was used
    read.clear()
    with open_sessions(bundle, ["predict"], "openvino", OPTIONS)["predict"] as session:
        session.run(toy.feeds(3))
    assert sorted(read.values()) == [False, True]  # the wanted one, and that of the last time


def test_what_another_version_or_setting_compiled_is_not_read(make_bundle, read, monkeypatch):
    bundle = make_bundle()
    with opened(bundle) as session:
        session.run(toy.feeds())
    with opened(bundle, SessionOptions(threads=2, precision="f32")) as session:
        session.run(toy.feeds())
    monkeypatch.setattr("lvdm_engines.backends.ov.compile.version", lambda: "2027.0")
    with opened(bundle) as session:
        session.run(toy.feeds())
    assert list(read.values()) == [False] * 3


def test_what_cannot_be_read_is_compiled_again(make_bundle, cache, read, monkeypatch):
    bundle = make_bundle()
    for bad in (b"nonsense", b""):
        monkeypatch.setattr("lvdm_engines.backends.ov.compile.read_cached", lambda name, d=bad: d)
        with opened(bundle) as session:
            np.testing.assert_array_equal(session.run(toy.feeds())["eps"], toy.eps(toy.feeds()))
    assert set(read.values()) == {False}


def test_large_graphs_are_not_kept(make_bundle, cache, monkeypatch):
    monkeypatch.setattr("lvdm_engines.backends.ov.compile._LARGEST_KEPT", 10)
    with opened(make_bundle()) as session:
        session.run(toy.feeds())
    assert not cache.exists()


def test_only_recent_shapes_stay_compiled(make_bundle, read, monkeypatch):
    monkeypatch.setattr(forms, "_MOST", 2)
    asked = []
    whole = Compiler.request
    monkeypatch.setattr(
        Compiler, "request", lambda self, s: asked.append(s["mask"][0]) or whole(self, s)
    )
    with opened(make_bundle()) as session:
        for rows in (1, 2, 1, 3, 1, 2):
            session.run(toy.feeds(rows))
    assert asked == [1, 2, 3, 2]


def test_threads_take_turns(make_bundle):
    answers = {}
    with opened(make_bundle()) as session:

        def run(rows):
            for _ in range(20):
                answers[rows] = session.run(toy.feeds(rows))["eps"]

        threads = [threading.Thread(target=run, args=(rows,)) for rows in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for rows, answer in answers.items():
        np.testing.assert_array_equal(answer, toy.eps(toy.feeds(rows)))


def test_a_session_says_what_it_rounds_to(make_bundle):
    with opened(make_bundle(), SessionOptions(threads=1)) as session:
        assert isinstance(session, Rounding)
        assert session.precision == choose_precision(None)


@pytest.mark.skipif("sky-tiny" not in builtin_bundles(), reason="there is no built-in model")
def test_frames_are_those_of_onnx_runtime_within_a_level(tmp_path):
    bundle = load_bundle("sky-tiny")
    rng = np.random.default_rng(0)
    feeds = {"latents": rng.standard_normal((1, 4, 4, 8, 8), np.float32)}
    frames = []
    for backend in ("cpu", "openvino"):
        with open_session(bundle, "decoder", backend, OPTIONS) as session:
            frames.append(session.run(feeds)["frames"].astype(int))
    assert np.abs(frames[0] - frames[1]).max() <= 1
