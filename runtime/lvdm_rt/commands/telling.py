"""How far a run is, told to a person or a program: a bar, a line now and then, or JSON lines.

Knows the stream it is given; nothing of flags or exit codes.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TextIO

from lvdm_rt.progress import Progress, ProgressCallback

Style = Literal["bar", "lines", "json", "none"]
STYLES: tuple[Style, ...] = ("bar", "lines", "json", "none")

_SECONDS_BETWEEN = {"lines": 5.0, "json": 0.5}
_PATIENCE = 1.0  # seconds, with a reader of stderr that takes nothing


@contextmanager
def telling(style: Style, stream: TextIO, prefix: str) -> Iterator[ProgressCallback | None]:
    """Give the callback that tells a run's progress in one of `STYLES`."""
    if style == "bar":
        with _bar(stream) as draw:
            yield draw
    elif style == "none":
        yield None
    elif style == "json":
        yield _now_and_then(stream, _SECONDS_BETWEEN[style])
    else:
        with _steadily(stream, _SECONDS_BETWEEN[style], prefix) as tell:
            yield tell


def event(stream: TextIO, name: str, /, **facts: Any) -> None:
    """Write one event as a line of JSON, at once."""
    _say(stream, json.dumps({"event": name, **facts}))


def _say(stream: TextIO, line: str) -> None:
    with suppress(OSError):  # nobody listens any more, which must not end the run
        stream.write(line + "\n")
        stream.flush()


@contextmanager
def _bar(stream: TextIO) -> Iterator[ProgressCallback]:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its watchdog thread is for bars that are rarely updated
    with tqdm(unit="step", file=stream, dynamic_ncols=True, leave=False) as bar:

        def draw(done: Progress) -> None:
            bar.total = done.total_steps
            bar.set_postfix_str(f"{done.frames}/{done.total_frames} frames", refresh=False)
            bar.update(done.steps - bar.n)

        yield draw


@contextmanager
def _steadily(stream: TextIO, seconds: float, prefix: str) -> Iterator[ProgressCallback]:
    """Say every few seconds how far a run is, also while an engine opens or one call takes long."""
    begun, end = time.monotonic(), threading.Event()
    started: float | None = None  # when engines were open: what is left goes by sampling alone
    newest: Progress | None = None

    def tell(done: Progress) -> None:
        nonlocal started, newest
        started, newest = started or time.monotonic(), done

    def say() -> None:
        while not end.wait(seconds):
            now = time.monotonic()
            if newest is None or started is None:
                _say(stream, f"{prefix}: preparing, for {now - begun:.0f} s so far")
            else:
                _say(stream, f"{prefix}: {_text_line(newest, now - started)}")

    thread = threading.Thread(target=say, name="lvdm-rt progress", daemon=True)
    with suppress(RuntimeError):  # a run without lines is better than none
        thread.start()
    try:
        yield tell
    finally:
        end.set()
        if thread.ident is not None:
            thread.join(_PATIENCE)


def _now_and_then(stream: TextIO, seconds: float) -> ProgressCallback:
    started: float | None = None
    last = 0.0

    def tell(done: Progress) -> None:
        nonlocal started, last
        now = time.monotonic()
        if started is None:
            started = last = now
        if now - last >= seconds:
            last = now
            told = {**done._asdict(), "seconds": round(now - started, 3)}
            event(stream, "progress", **told)

    return tell


def _text_line(done: Progress, seconds: float) -> str:
    left = seconds / done.steps * (done.total_steps - done.steps) if done.steps else 0.0
    return (
        f"step {done.steps} of {done.total_steps}, {done.frames} of "
        f"{done.total_frames} frames, about {left:.0f} s of sampling left"
    )
