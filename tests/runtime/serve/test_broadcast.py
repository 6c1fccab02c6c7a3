"""What listeners hear, however slowly they listen."""

import asyncio
import threading

import numpy as np

from lvdm_rt.serve.broadcast import (
    Advanced,
    Broadcaster,
    FilmGrew,
    Listener,
    Previewed,
    StatusChanged,
)

PICTURES = Previewed("predict", np.zeros((4, 2, 2, 3), np.uint8))
DONE = StatusChanged("completed")


def at(percent):
    return Advanced(percent, percent, 100, 0, 8)


def heard(told, *, from_thread=False):
    """What a listener hears of a job that is told of before it looks."""

    async def listen():
        broadcaster = Broadcaster()

        def tell():
            for item in told:
                broadcaster.tell("a", item)
            broadcaster.tell("b", at(99))

        with broadcaster.listen("a") as news:
            if from_thread:
                thread = threading.Thread(target=tell)
                thread.start()
            else:
                tell()
            items = [item async for item in news]
            if from_thread:
                thread.join()
        return items

    return asyncio.run(asyncio.wait_for(listen(), 10))


def test_a_listener_hears_of_its_job_until_that_has_ended():
    told = [PICTURES, at(50), FilmGrew(4), DONE]
    assert heard([*told, at(51)]) == told


def test_what_a_thread_tells_wakes_the_listener():
    assert heard([FilmGrew(4), DONE], from_thread=True)[-1] == DONE


def test_of_each_kind_that_waits_only_the_newest_is_heard():
    told = [at(1), FilmGrew(4), at(2), FilmGrew(8), PICTURES, StatusChanged("in_progress"), at(3)]
    assert heard([*told, DONE]) == [FilmGrew(8), PICTURES, at(3), DONE]


def test_who_listens_slowly_costs_no_memory_and_nobody_waits():
    async def listen():
        slow, quick = Listener(), Listener()
        for count in range(1000):
            slow.add(FilmGrew(count))
            quick.add(FilmGrew(count))
            assert await anext(quick) == FilmGrew(count)
        assert await anext(slow) == FilmGrew(999)
        slow.end()
        return [item async for item in slow]

    assert asyncio.run(listen()) == []


def test_all_listeners_come_to_an_end_with_the_server():
    async def listen():
        broadcaster = Broadcaster()
        with broadcaster.listen("a") as before:
            broadcaster.tell("a", at(1))
            broadcaster.close()
            assert [item async for item in before] == [at(1)]
        with broadcaster.listen("a") as after:
            assert [item async for item in after] == []
        broadcaster.tell("a", at(2))

    asyncio.run(asyncio.wait_for(listen(), 10))


def test_a_closed_event_loop_ends_no_worker():
    kept = []

    async def listen():
        kept.append(Listener())

    asyncio.run(listen())
    kept[0].add(FilmGrew(4))
