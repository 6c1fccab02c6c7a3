"""What a session answers is held against what its graph declares, whoever made the session."""

import numpy as np
import pytest
from msgspec import structs

from lvdm_engines.errors import BundleError, NumericsError, OptionsError
from lvdm_rt import GenerateOptions, Pipeline

ANSWERS = {
    "too few frames": ("decoder", lambda out: out[:, :-4]),
    "too many frames": ("decoder", lambda out: np.repeat(out, 2, axis=1)),
    "another type": ("decoder", lambda out: out.astype(np.float32)),
    "noise that would broadcast": ("predict", lambda out: out[:, :, :1]),
    "noise of one row": ("interpolate", lambda out: out[:1, :1]),
    "double precision": ("predict", lambda out: out.astype(np.float64)),
    "nothing": ("predict", lambda out: None),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_engine_that_gives_something_else_is_named(make_fake, answer):
    graph, change = ANSWERS[answer]
    manifest, sessions = make_fake()
    right = sessions[graph].compute
    sessions[graph].compute = lambda **feeds: change(right(**feeds))
    with pytest.raises(BundleError, match=rf"{graph}: output \w+: got .*, expected \w+ \("):
        list(Pipeline(manifest, sessions).stream(GenerateOptions(frames=40)))


@pytest.mark.parametrize("overlap", [-1, 3, 99, 1.5, 2.0, "1", True, 10**400])
def test_windows_that_overlap_by_more_than_half_are_refused(make_fake, overlap):
    pipeline = Pipeline(*make_fake())
    with pytest.raises(OptionsError, match="expected a whole number from 0 to 2"):
        pipeline.encode(np.zeros((32, 16, 16, 3), np.uint8), overlap)
    with pytest.raises(OptionsError, match="expected a whole number from 0 to 2"):
        list(pipeline.decode(np.zeros((2, 8, 4, 4), np.float32), overlap))


def test_windows_may_overlap_by_half_whatever_the_bundles_default_is(make_fake):
    manifest, sessions = make_fake()
    defaults = structs.replace(manifest.defaults, overlap=0)
    pipeline = Pipeline(structs.replace(manifest, defaults=defaults), sessions)
    frames = np.zeros((32, 16, 16, 3), np.uint8)
    assert pipeline.encode(frames, 2).shape == pipeline.encode(frames).shape
    with pytest.raises(OptionsError, match="expected a whole number from 0 to 2"):
        pipeline.encode(frames, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_latents_that_are_no_numbers_are_not_decoded(make_fake, value):
    latents = np.zeros((2, 8, 4, 4), np.float32)
    latents[0, 5, 1, 1] = value
    with pytest.raises(NumericsError, match="got latents with NaN or infinity"):
        list(Pipeline(*make_fake()).decode(latents))
