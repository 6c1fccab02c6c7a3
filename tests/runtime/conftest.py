"""Pipelines of the model of arrays."""

import msgspec
import pytest
from toy_arrays import MODEL, make_manifest, make_sessions, our_threads

from lvdm_rt import Pipeline


@pytest.fixture
def manifest():
    return make_manifest()


@pytest.fixture
def sessions(manifest):
    return make_sessions(manifest)


@pytest.fixture
def pipeline(manifest, sessions):
    with Pipeline(manifest, sessions) as pipeline:
        yield pipeline


@pytest.fixture
def make_fake():
    """Make manifest and sessions of a model that differs in some facts."""

    def make(**facts):
        manifest = make_manifest(msgspec.structs.replace(MODEL, **facts))
        return manifest, make_sessions(manifest)

    return make


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert our_threads() == []
