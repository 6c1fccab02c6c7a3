"""Models that read text are measured as well: asked for nothing in particular."""

import pytest

pytest.importorskip("tokenizers")

from toy_prompted import write_prompted_bundle

from lvdm_engines.bundle import load_bundle
from lvdm_rt import GenerateOptions
from lvdm_tools.bench.end_to_end import end_to_end


def test_a_video_of_a_model_that_reads_text_is_timed(tmp_path):
    bundle = load_bundle(write_prompted_bundle(tmp_path / "told"))
    options = GenerateOptions(frames=40, sampler="ddim", steps=3, refine=0)
    found = end_to_end(bundle, "cpu", options)
    assert found["frames"] == 40
    assert found["seconds"] > 0
