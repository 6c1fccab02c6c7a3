import importlib.util
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from toy_films import plain, write

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embed_example", DOCS / "embed_example.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_continues_a_file(example, toy, tmp_path):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    # two seconds that get brighter
    write(source, plain(range(0, 250, 5), (48, 64)), "libx264", rate=25)
    options = example.GenerateOptions(frames=13, seed=7)
    example.continue_video(source, str(target), options, str(toy))
    with av.open(str(target)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 2 * 8 + 13
    assert frames[0].shape == (16, 16, 3)
    assert np.mean(frames[15]) == pytest.approx(235, abs=12)


def test_the_example_crops_and_says_its_colours(example, toy, tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 8:56] = 200  # what a square in the middle shows
    source, target = write(tmp_path / "in.mp4", [picture] * 30, "libx264"), tmp_path / "out.mp4"
    options = example.GenerateOptions(frames=1, seed=7)
    example.continue_video(source, str(target), options, str(toy))
    with av.open(str(target)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace) == (1, 1, 1)
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert first.min() > 150


def test_the_example_in_the_document_is_the_script():
    assert (DOCS / "embed_example.py").read_text() in (DOCS / "embedding.md").read_text()
