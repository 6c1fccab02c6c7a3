import pytest
import toy


@pytest.fixture
def make_bundle(tmp_path):
    """Write a bundle whose predict and interpolate graphs are one file."""
    return lambda folder="bundle", **options: toy.write_bundle(tmp_path / folder, **options)


@pytest.fixture
def feeds():
    return toy.feeds()
