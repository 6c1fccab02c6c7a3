"""Pools of workers without a cluster: threads that hold a maker of clips each."""

import queue
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from toy_arrays import make_sessions

from lvdm_rt import Pipeline
from lvdm_rt.scale.maker import PieceMaker
from lvdm_rt.scale.remote import pool_pipeline


class ThreadPool:
    """Makers in threads; `delay(function)` is how long a piece takes at least."""

    def __init__(self, makers, delay=lambda _: 0.0):
        self.size, self.delay = len(makers), delay
        self.done: list[str] = []
        self._idle = queue.SimpleQueue()
        for maker in makers:
            self._idle.put(maker)
        self._threads = ThreadPoolExecutor(len(makers), thread_name_prefix="toy pool")

    def submit(self, function, *arguments):
        return self._threads.submit(self._do, function, *arguments)

    def _do(self, function, *arguments):
        maker = self._idle.get()
        try:
            time.sleep(self.delay(function))
            return function(maker, *arguments)
        finally:
            self.done.append(function.__name__)
            self._idle.put(maker)

    def close(self):
        self._threads.shutdown()


def at_random(seed, most=0.004):
    """A delay that differs from piece to piece, so that they end in any order."""
    chance = random.Random(seed)  # noqa: S311 - any order will do
    return lambda _: chance.uniform(0, most)


@contextmanager
def spread_over(manifest, count, *, sessions=None, delay=lambda _: 0.0, tokenizer=None):
    """Give a pipeline whose work is done by `count` threads, and their pool."""
    made = [
        Pipeline(manifest, sessions or make_sessions(manifest), tokenizer) for _ in range(count)
    ]
    pool = ThreadPool([PieceMaker(pipeline) for pipeline in made], delay)
    try:
        with pool_pipeline(manifest, tokenizer, pool) as pipeline:
            yield pipeline, pool
    finally:
        pool.close()
        for own in made:
            own.close()
