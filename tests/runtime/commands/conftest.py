"""Ways to run the command `generate` on a bundle of graphs that only rearrange and scale."""

from unittest.mock import Mock

import pytest

from lvdm_rt.video import VideoWriter


@pytest.fixture
def generate(command, toy):
    """Generate 12 frames where no flag says otherwise; returns what is said on the way.

    A test that expects it to fail says with which exit `code`.
    """

    def generate(out, *flags, bundle=toy, code=0):
        words = ("generate", "-o", out, "--bundle", bundle, "--frames", "12", "--seed", "7")
        got, _, err = command(*words, *flags)
        assert got == code, err
        return err

    return generate


@pytest.fixture
def stopped(generate, monkeypatch):
    """Generate until the first frames are written, where an error comes up: by default Ctrl-C."""

    def stopped(*flags, error=None, **how):
        code = 130 if error is None else 1
        with monkeypatch.context() as patch:
            write = Mock(side_effect=error or KeyboardInterrupt)
            patch.setattr(VideoWriter, "write", write)
            return generate(*flags, code=code, **how)

    return stopped
