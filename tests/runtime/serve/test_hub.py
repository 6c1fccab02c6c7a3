"""What listeners hear, however slowly they listen."""

import asyncio
import threading

import numpy as np
import pytest

from lvdm_rt.serve.hub import Advanced, FramesMade, Hub, Listener, StatusChanged

FRAMES = FramesMade(0, np.zeros((4, 16, 16, 3), np.uint8))
DONE = StatusChanged("completed")


def at(percent):
    return Advanced(percent, percent, 100, 0, 8)


def heard(told, *, frames=True, from_thread=False):
    """What a listener hears of a job that is told of while it listens."""

    async def listen():
        hub = Hub()

        def tell():
            for item in told:
                hub.tell("a", item)
            hub.tell("b", at(99))

        with hub.listen("a", frames=frames) as news:
            if from_thread:
                thread = threading.Thread(target=tell)
                thread.start()
            else:
                tell()
            items = [item async for item in news]
            if from_thread:
                thread.join()
        return items, news.lost

    return asyncio.run(asyncio.wait_for(listen(), 10))


def test_a_listener_hears_of_its_job_until_that_has_ended():
    told = [StatusChanged("in_progress"), FRAMES, at(50), FRAMES, DONE]
    assert heard(told) == (told, False)


def test_what_a_thread_tells_wakes_the_listener():
    assert heard([FRAMES, FRAMES, DONE], from_thread=True) == ([FRAMES, FRAMES, DONE], False)


def test_of_progress_that_waits_only_the_newest_is_heard():
    assert heard([at(1), at(2), at(3), DONE])[0] == [at(3), DONE]


def test_who_wants_no_frames_gets_none():
    assert heard([FRAMES, at(1), FRAMES, DONE], frames=False)[0] == [at(1), DONE]


def test_a_listener_that_is_too_slow_is_let_go_and_nobody_waits_for_it():
    async def listen():
        slow, quick = (Listener(frames=True, most_waiting=10_000) for _ in range(2))
        heard = 0
        for _ in range(10):
            slow.add(FRAMES)
            quick.add(FRAMES)
            heard += (await anext(quick)) is FRAMES
        with pytest.raises(StopAsyncIteration):
            await anext(slow)
        return slow.lost, quick.lost, heard

    assert asyncio.run(listen()) == (True, False, 10)


def test_all_listeners_come_to_an_end_with_the_server():
    async def listen():
        hub = Hub()
        with hub.listen("a") as before:
            hub.tell("a", at(1))
            hub.close()
            assert [item async for item in before] == [at(1)]
        with hub.listen("a") as after:
            assert [item async for item in after] == []
        hub.tell("a", at(2))

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_a_closed_event_loop_ends_no_worker():
    kept = []

    async def listen():
        kept.append(Listener(frames=True))

    asyncio.run(listen())
    kept[0].add(FRAMES)
