"""How far a run is, told to a person or a program: a bar, a line now and then, or JSON lines.

Knows the stream it is given; nothing of flags or exit codes.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TextIO

from lvdm_rt.progress import Progress, ProgressCallback

Style = Literal["bar", "lines", "json", "none"]
STYLES: tuple[Style, ...] = ("bar", "lines", "json", "none")

_SECONDS_BETWEEN = {"lines": 5.0, "json": 0.5}


@contextmanager
def telling(style: Style, stream: TextIO, prefix: str) -> Iterator[ProgressCallback | None]:
    """Give the callback that tells a run's progress in one of `STYLES`."""
    if style == "bar":
        with _bar(stream) as draw:
            yield draw
    elif style == "none":
        yield None
    else:
        line = _json_line if style == "json" else _text_line
        yield _now_and_then(stream, _SECONDS_BETWEEN[style], lambda *a: line(prefix, *a))


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


def _now_and_then(
    stream: TextIO, seconds: float, line: Callable[[Progress, float], str]
) -> ProgressCallback:
    started: float | None = None  # when engines were open: what is left goes by sampling alone
    last = 0.0

    def tell(done: Progress) -> None:
        nonlocal started, last
        now = time.monotonic()
        if started is None:
            started = last = now
        if now - last >= seconds:
            last = now
            _say(stream, line(done, now - started))

    return tell


def _text_line(prefix: str, done: Progress, seconds: float) -> str:
    left = seconds / done.steps * (done.total_steps - done.steps) if done.steps else 0.0
    return (
        f"{prefix}: step {done.steps} of {done.total_steps}, {done.frames} of "
        f"{done.total_frames} frames, about {left:.0f} s of sampling left"
    )


def _json_line(_: str, done: Progress, seconds: float) -> str:
    return json.dumps({"event": "progress", **done._asdict(), "seconds": round(seconds, 3)})
