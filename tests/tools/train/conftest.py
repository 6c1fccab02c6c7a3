"""Whole runs of tiny networks, each made once for all tests."""

from unittest.mock import Mock

import pytest
from toy_runs import AUTOENCODER, DENOISER, changed, train

from lvdm_tools.train import sheets


@pytest.fixture(autouse=True)
def _no_curves():
    # they take most of the time of a step; the runs below draw theirs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "curves", Mock())
        yield


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory):
    """Return the folder of an uninterrupted autoencoder run."""
    out = tmp_path_factory.mktemp("whole") / "autoencoder"
    train(AUTOENCODER, out)
    return out


@pytest.fixture(scope="session")
def tiny_denoiser(autoencoder):
    """Settings of a denoiser on that autoencoder's latents."""
    return changed(DENOISER, {"autoencoder": str(autoencoder)})


@pytest.fixture(scope="session")
def denoiser(tmp_path_factory, tiny_denoiser):
    """Return the folder of an uninterrupted denoiser run."""
    out = tmp_path_factory.mktemp("whole") / "denoiser"
    train(tiny_denoiser, out)
    return out
