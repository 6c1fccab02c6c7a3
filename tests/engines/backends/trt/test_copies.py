"""What travels between host and device, and when."""

import numpy as np
import pytest

from lvdm_engines.backends.trt.session import TrtSession
from lvdm_engines.errors import SessionError
from lvdm_rt.diffusion.guidance import guided


def test_feeds_that_did_not_change_stay_on_the_device(session, gpu, feeds_of, expected):
    feeds = feeds_of(2)
    session.run(feeds)
    gpu.log.clear()
    feeds = {**feeds, "latents": feeds["latents"] + 1, "timestep": feeds["timestep"] - 1}
    np.testing.assert_array_equal(session.run(feeds)["eps"], expected(feeds))
    assert gpu.count("upload") == 2  # the mask stayed


def test_of_a_clip_only_latents_and_timestep_travel_at_every_step(session, gpu):
    steps = 10
    mask = np.zeros((3, 4), np.float32)
    mask[:2, 0] = 1

    def call(feeds):
        return session.run({name: feeds[name] for name in ("latents", "timestep", "mask")})["eps"]

    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2, 4, 2, 2), dtype=np.float32)
    for _ in range(2):  # clips
        eps = guided(call, mask, 100, 0.5)
        for t in range(steps, 0, -1):
            x = x - np.float32(0.1) * eps(x, t)
        mask = 1 - mask
    masks = 4 * (3 + 2) * 4, 4 * (3 + 3) * 4  # bytes, with the rows of the unconditional branch
    uploads = [nbytes for kind, nbytes in gpu.log if kind == "upload"]
    assert len(uploads) == 2 * (2 * steps + 1)
    assert [uploads.count(nbytes) for nbytes in masks] == [1, 1]
    assert gpu.count("download") == 2 * steps


def test_large_feeds_stay_as_well_and_a_change_at_their_end_is_seen(opened, gpu, feeds_of):
    with TrtSession(opened(), "") as session:
        feeds = feeds_of(16)
        session.run(feeds)
        gpu.log.clear()
        session.run(feeds)
        assert gpu.count("upload") == 0
        feeds["latents"][-1, -1, -1, -1, -1] += 1
        session.run(feeds)
        assert gpu.count("upload") == 1


def test_a_feed_changed_in_place_is_uploaded_again(session, feeds_of, expected):
    feeds = feeds_of(2)
    session.run(feeds)
    feeds["mask"][:] = 1 - feeds["mask"]
    np.testing.assert_array_equal(session.run(feeds)["eps"], expected(feeds))


def test_feeds_of_another_shape_are_uploaded_again(session, feeds_of, expected):
    for rows in (2, 3, 2):
        feeds = {**feeds_of(rows), "mask": np.ones((rows, 4), np.float32)}
        np.testing.assert_array_equal(session.run(feeds)["eps"], expected(feeds))


@pytest.mark.parametrize("rows", [3, 40])
def test_the_device_alone_can_be_timed_in_parts_too(session, gpu, feeds_of, rows):
    parts = 1 if rows == 3 else 3
    assert session.device_seconds(feeds_of(rows), 5) > 0
    assert gpu.count("download") == 2 * parts  # of the two runs that come first
    assert gpu.count("execute") + gpu.count("launch") >= (2 + 5) * parts


def test_a_library_that_records_on_its_own_is_timed_at_the_shapes_of_each_part(
    opened, gpu, feeds_of
):
    with TrtSession(opened(record=False), "") as session:
        session.device_seconds(feeds_of(37), 2)  # 12, 12 and 13 rows
    runs = [rows for kind, rows in gpu.log if kind == "execute"]
    assert runs == [12, 12, 13] * 2 + [12, 12, 12, 12, 13, 13]


def test_the_round_trip_can_be_timed_without_computing(session, gpu, feeds_of, expected):
    feeds = feeds_of(3)
    session.run(feeds)
    session.run(feeds)
    gpu.log.clear()
    assert session.copy_seconds(feeds, ("latents", "timestep"), 5) > 0
    assert gpu.count("launch") == 2  # the two runs that come first
    assert gpu.count("upload") == 2 * 5
    assert gpu.count("download") == 2 + 5
    np.testing.assert_array_equal(session.run(feeds)["eps"], expected(feeds))
    session.close()
    with pytest.raises(SessionError, match="the session is closed"):
        session.copy_seconds(feeds, ("latents",), 1)
