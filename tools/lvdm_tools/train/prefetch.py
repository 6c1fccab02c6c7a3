"""Batches made ahead of time in a background thread."""

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from torch import Tensor

Batch = dict[str, Tensor]
T = TypeVar("T")


def prefetch(make: Callable[[int], T], first: int, last: int, depth: int = 3) -> Generator[T]:
    """Yield make(first) … make(last − 1) in order, at most `depth` of them ahead.

    `make` depends on its argument only, so working ahead changes no number.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        waiting: list[Future[T]] = []
        try:
            for step in range(first, last):
                waiting += [
                    pool.submit(make, ahead)
                    for ahead in range(step + len(waiting), min(step + depth, last))
                ]
                yield waiting.pop(0).result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
