import logging
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest
from toy_gpu import FakeContext, check_run, expected, feeds_of

from lvdm_engines.backends.gpu.scratch import SharedScratch
from lvdm_engines.backends.plan_facts import Range
from lvdm_engines.backends.trt.session import TrtSession
from lvdm_engines.errors import DeviceMemoryError, SessionError


@pytest.mark.parametrize(("rows", "clip"), [(1, 4), (3, 4), (7, 4), (16, 4), (4, 5)])
def test_any_shape_of_a_profile_runs(session, rows, clip):
    feeds = feeds_of(rows, clip)
    for _ in range(3):  # plain, recorded, launched
        check_run(session, feeds)


def test_the_profile_with_the_nearest_optimum_is_chosen(session, engine):
    for rows, clip in ((4, 4), (6, 4), (2, 5)):
        session.run(feeds_of(rows, clip))
    assert {context.profile for context in engine.contexts} == {0, 1, 2}


def test_buffers_are_allocated_once_per_profile(session, gpu):
    session.run(feeds_of(1))
    allocated = gpu.count("allocate")
    for rows in (2, 3, 4, 1):
        session.run(feeds_of(rows))
    assert gpu.count("allocate") == allocated
    assert ("allocate", 4 * 2 * 4 * 2 * 2 * 4) in gpu.log  # latents at the profile's maximum


def test_the_second_run_of_a_shape_is_recorded_and_later_ones_only_launched(session, gpu):
    kinds = []
    for seed in range(4):
        gpu.log.clear()
        check_run(session, feeds_of(2, seed=seed))
        kinds.append([k for k, _ in gpu.log if k in ("execute", "record", "launch")])
    assert kinds == [["execute"], ["record", "launch"], ["launch"], ["launch"]]


def test_shapes_that_alternate_keep_their_recordings(session, gpu):
    for seed in range(6):
        check_run(session, feeds_of(1 + seed % 2, seed=seed))
    assert gpu.count("record") == 2
    assert gpu.count("execute") == 2


def test_only_the_most_recent_shapes_keep_a_context(opened, engine, gpu):
    with TrtSession(opened(), "") as session:
        for rows in (*range(5, 17), 5):
            session.run(feeds_of(rows))
        assert len(engine.contexts) == 14  # one more to size the buffers; 5 rows were forgotten


def test_a_device_that_cannot_record_runs_plainly_and_says_so(session, gpu, caplog):
    gpu.refuse_recording = True
    feeds = feeds_of(2)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            check_run(session, feeds)
    assert caplog.text.count("predict runs without CUDA graphs: cannot capture") == 1
    assert gpu.count("execute") == 4


def test_a_library_that_records_on_its_own_gets_one_context_per_profile(opened, engine, gpu):
    with TrtSession(opened(record=False), "") as session:
        for rows in (1, 2, 1, 3, 3, 3):
            check_run(session, feeds_of(rows))
    assert len(engine.contexts) == 1
    assert gpu.count("record") == 0


def test_outputs_belong_to_the_caller_and_feeds_need_not_be_contiguous(session):
    feeds = feeds_of(2)
    feeds["latents"] = np.asfortranarray(feeds["latents"])
    first = session.run(feeds)["eps"]
    second = session.run(feeds_of(2, seed=1))["eps"]
    np.testing.assert_array_equal(first, expected(feeds))
    assert first.flags.owndata
    assert not np.shares_memory(first, second)


def test_a_batch_above_every_profile_runs_in_parts(session, gpu):
    check_run(session, feeds_of(37))
    sizes = [nbytes // 4 for kind, nbytes in gpu.log if kind == "download"]
    assert [size // (2 * 4 * 2 * 2) for size in sizes] == [12, 12, 13]  # rows


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 20])
def test_a_batch_that_a_plan_wants_more_rows_for_is_padded(opened, engine, rows):
    engine.profiles = ({"b": Range(8, 8, 8), "t": Range(4, 4, 4)},)
    with TrtSession(opened(), "") as session:
        for seed in range(3):
            check_run(session, feeds_of(rows, seed=seed))
        assert session.device_seconds(feeds_of(rows), 1) > 0


def test_shapes_that_contradict_each_other_end_in_one_line(session, monkeypatch):
    contradiction = Mock(side_effect=RuntimeError("inferShapes failed"))
    monkeypatch.setattr(FakeContext, "infer_shapes", contradiction)
    with pytest.raises(SessionError, match=r"^predict: cannot infer shapes"):
        session.run(feeds_of(2))


def test_a_shape_outside_every_profile_names_them_and_the_rebuild_command(session):
    told = r"got b = 2, t = 6, expected one of the plan's profiles \(b = 1:2:4, t = 4:4:4;.*"
    command = "lvdm-export build-engines --bundle B --backend tensorrt"
    with pytest.raises(SessionError, match=f"{told}{command}$"):
        session.run(feeds_of(2, clip=6))


def test_wrong_feeds_are_refused_before_the_device_is_touched(session, gpu):
    with pytest.raises(SessionError, match="input mask: got float64"):
        session.run({**feeds_of(2), "mask": np.ones((2, 4))})
    assert gpu.log == []


def test_running_out_of_memory_frees_what_was_taken_and_a_smaller_batch_still_runs(opened, gpu):
    gpu.budget = 6000
    with TrtSession(opened(), "") as session:
        with pytest.raises(DeviceMemoryError):
            session.run(feeds_of(16))
        assert sum(block.nbytes for block in gpu.blocks.values()) < 3000
        check_run(session, feeds_of(3))


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ("Error Code 2: OutOfMemory (Requested 9 GiB)", DeviceMemoryError, "out of memory .*lower"),
        ("Error Code 1: Myelin (No result)", SessionError, "Error Code 1: Myelin"),
    ],
)
def test_a_failed_run_carries_the_librarys_own_words_and_the_session_goes_on(
    session, engine, said, kind, told
):
    engine.error = said
    with pytest.raises(SessionError, match=rf"^predict: cannot run: {told}") as caught:
        session.run(feeds_of(2))
    assert type(caught.value) is kind
    engine.error = None
    feeds = feeds_of(2)
    for _ in range(3):
        check_run(session, feeds)


def test_a_fault_while_running_is_reported_and_nothing_stale_is_used_afterwards(session, gpu):
    feeds = feeds_of(2)
    session.run(feeds)
    gpu.fault = SessionError("cannot run: CUDA_ERROR_LAUNCH_TIMEOUT")
    with pytest.raises(SessionError, match="LAUNCH_TIMEOUT"):
        session.run(feeds)
    gpu.log.clear()
    check_run(session, feeds)
    assert gpu.count("upload") == len(feeds)


def test_closing_frees_everything_and_a_closed_session_says_so(opened, gpu):
    scratch = SharedScratch(gpu)
    session = TrtSession(opened(scratch), "")
    session.run(feeds_of(2))
    session.close()
    session.close()
    scratch.close()
    assert gpu.blocks == {}
    assert not any(memory.open for memory in gpu.pinned)
    with pytest.raises(SessionError, match="the session is closed"):
        session.run(feeds_of(2))


def test_closing_releases_the_rest_where_a_part_of_it_fails(opened, gpu, monkeypatch):
    made = opened()
    keep = Mock(side_effect=SessionError("the kernels cannot be kept"))
    session = TrtSession(made, "", keep)
    session.run(feeds_of(2))
    session.run(feeds_of(6))
    first = next(iter(gpu.blocks.values()))
    monkeypatch.setattr(first, "close", Mock(side_effect=SessionError("cannot free memory")))
    with pytest.raises(SessionError):
        session.close()
    made.scratch.close()
    assert list(gpu.blocks.values()) == [first]
    assert not any(memory.open for memory in gpu.pinned)
    assert not made.stream.open
    session.close()  # it is closed by now


def test_sessions_share_one_block_of_activations_of_the_largest_need(opened, gpu):
    scratch = SharedScratch(gpu)
    small, large = TrtSession(opened(scratch), ""), TrtSession(opened(scratch), "")
    for seed in range(4):  # the block grows after the first run and moves
        for session, rows in ((small, 2), (large, 9)):
            check_run(session, feeds_of(rows, seed=seed))
    sizes = [nbytes for kind, nbytes in gpu.log if kind == "allocate"]
    assert sizes.count(1000) == 1
    assert sizes.count(4000) == 1
    held = [block.nbytes for block in gpu.blocks.values()]
    assert 1000 not in held
    assert held.count(4000) == 1
    small.close()
    large.close()


def test_work_recorded_before_the_block_moved_is_not_launched_again(opened, gpu):
    scratch = SharedScratch(gpu)
    with TrtSession(opened(scratch), "") as first, TrtSession(opened(scratch), "") as second:
        for seed in range(3):
            first.run(feeds_of(2, seed=seed))
        second.run(feeds_of(9))
        gpu.log.clear()
        check_run(first, feeds_of(2, seed=9))
        assert gpu.count("execute") == 1
        assert gpu.count("launch") == 0


def test_turns_are_ordered_between_streams_without_waiting_in_the_host(gpu):
    scratch = SharedScratch(gpu)
    one, two = gpu.stream(), gpu.stream()
    order = []
    with scratch.turn(one, 100):
        one.put(lambda: order.append("one"))
    with scratch.turn(two, 100):
        two.put(lambda: order.append("two"))
    assert order == []
    two.sync()
    assert order == ["one", "two"]


def test_runs_from_several_threads_take_turns(session):
    cases = [feeds_of(1 + k % 4, seed=k) for k in range(12)]
    with ThreadPoolExecutor(3) as pool:
        for feeds, done in zip(cases, pool.map(session.run, cases), strict=True):
            np.testing.assert_array_equal(done["eps"], expected(feeds))
