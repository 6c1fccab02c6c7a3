"""What travels between host and device, and when."""

import numpy as np
import pytest
from toy_gpu import check_run, feeds_of

from lvdm_engines.backends.trt.session import TrtSession
from lvdm_engines.errors import SessionError
from lvdm_rt.diffusion.guidance import guided


def test_of_a_clip_only_latents_and_timestep_travel_at_every_step(session, gpu):
    steps = 10
    mask = np.zeros((3, 4), np.float32)
    mask[:2, 0] = 1

    def call(feeds):
        return session.run({spec.name: feeds[spec.name] for spec in session.inputs})["eps"]

    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2, 4, 2, 2), dtype=np.float32)
    for _ in range(2):  # clips
        eps = guided(call, mask, 100, 0.5)
        for t in range(steps, 0, -1):
            x = x - np.float32(0.1) * eps(x, t)
        mask = 1 - mask
    masks = 4 * (3 + 2) * 4, 4 * (3 + 3) * 4  # bytes, with the rows of the unconditional branch
    uploads = [nbytes for kind, nbytes in gpu.log if kind == "upload"]
    assert len(uploads) == 2 * (2 * steps + 2)  # and a mask and its noise levels for each clip
    assert [uploads.count(nbytes) for nbytes in masks] == [1, 1]
    assert gpu.count("download") == 2 * steps


def test_feeds_stay_until_a_single_value_changes_even_in_place(session, gpu):
    feeds = feeds_of(16)
    session.run(feeds)
    for name, index in (("latents", (-1,) * 5), ("mask", (0, 0)), ("latents", (0,) * 5)):
        gpu.log.clear()
        session.run(feeds)
        assert gpu.count("upload") == 0
        feeds[name][index] += 1
        check_run(session, feeds)
        assert gpu.count("upload") == 1


def test_feeds_of_another_shape_are_uploaded_again(session):
    for rows in (2, 3, 2):
        feeds = {**feeds_of(rows), "mask": np.ones((rows, 4), np.float32)}
        check_run(session, feeds)


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize(("rows", "parts"), [(3, [3]), (37, [12, 12, 13])])
def test_the_device_alone_is_timed_at_the_shapes_of_each_part(opened, gpu, rows, parts, record):
    with TrtSession(opened(record=record), "") as session:
        assert session.device_seconds(feeds_of(rows), 5) > 0
    assert gpu.count("download") == 2 * len(parts)  # of the two runs that come first
    assert gpu.count("execute") + gpu.count("launch") == (2 + 5) * len(parts)
    if not record:
        runs = [rows for kind, rows in gpu.log if kind == "execute"]
        assert runs == 2 * parts + [part for part in parts for _ in range(5)]


def test_the_round_trip_can_be_timed_without_computing(session, gpu):
    feeds = feeds_of(3)
    session.run(feeds)
    session.run(feeds)
    gpu.log.clear()
    assert session.copy_seconds(feeds, ("latents", "timestep"), 5) > 0
    assert gpu.count("launch") == 2  # the two runs that come first
    assert gpu.count("upload") == 2 * 5
    assert gpu.count("download") == 2 + 5
    check_run(session, feeds)
    session.close()
    with pytest.raises(SessionError, match="the session is closed"):
        session.copy_seconds(feeds, ("latents",), 1)
