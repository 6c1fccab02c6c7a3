"""A service of the model of arrays, and a client of its routes."""

import pytest
from toy_serving import serving

from lvdm_rt.serve.app import make_app
from lvdm_rt.serve.gate import GateRules


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "videos"


@pytest.fixture
def service(folder, sessions):
    with serving(folder, sessions) as service:
        yield service


@pytest.fixture
def idle(folder):
    """A service whose worker was never started."""
    with serving(folder, start=False) as service:
        yield service


@pytest.fixture
def client_of():
    """Make a client of a service."""
    from starlette.testclient import TestClient

    def make(service, **rules):
        app = make_app(service, GateRules(**rules))
        return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)

    return make


@pytest.fixture
def client(service, client_of):
    return client_of(service)
