"""One case in a process of its own: what it said, how it ended, and what that is worth.

The process is a copy of this one, so that everything is imported once; a crash of a native parser
ends only the copy. It may take 60 s of a processor and 2 GiB beside what is in use; where a machine
has much else to do, that is longer by the clock.
"""

import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 60
_BY_THE_CLOCK = 240
MEMORY = 2 << 30  # bytes
_LONGEST = 3000  # characters of an error
_FAULT = 99  # exit code of an exception that nobody expected


@dataclass(frozen=True)
class Outcome:
    """How a case ended: exit code (negative: a signal), output, seconds and bytes."""

    code: int
    out: str
    err: str
    seconds: float
    memory: int

    def findings(self, errors: int = 1) -> list[str]:
        """Return what a case with so many errors at most may not do, of what this one did."""
        lines = self.err.splitlines()
        told = {
            f"ended by signal {-self.code}": self.code < 0,
            f"exit code {self.code}": self.code > 2,
            "a traceback": "Traceback" in self.err,
            "no line": self.code in (1, 2) and not lines,
            f"{len(lines)} lines": self.code == 1 and len(lines) > errors,
            "an error that is too long": self.code == 1 and len(self.err) > errors * _LONGEST,
            "characters that no terminal shows": not all(map(str.isprintable, lines)),
            f"{self.seconds:.0f} s": self.seconds > SECONDS,
            f"{self.memory >> 20} MiB": self.memory > MEMORY,
            "out of memory": self.code == 1 and "out of memory" in self.err,
        }
        return [what for what, holds in told.items() if holds]


def run(case: Callable[[], int], folder: Path) -> Outcome:
    """Run a case in `folder`; it returns its exit code, and prints where it likes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        used = _resident()
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_in_child(case, folder))
        status, usage = _waited(child, began)
        out.seek(0)
        err.seek(0)
        return Outcome(
            os.waitstatus_to_exitcode(status),
            out.read().decode("utf-8", "replace"),
            err.read().decode("utf-8", "replace"),
            usage.ru_utime + usage.ru_stime if status != signal.SIGKILL else _BY_THE_CLOCK,
            max(0, usage.ru_maxrss * 1024 - used),
        )


def _in_child(case: Callable[[], int], folder: Path) -> int:
    try:
        faulthandler.disable()  # a crash is told by the signal alone
        os.chdir(folder)
        room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (room + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = case()
    except BaseException:  # noqa: BLE001 - which is a finding
        os.write(2, traceback.format_exc().encode())
        code = _FAULT
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


def _waited(child: int, began: float) -> tuple[int, resource.struct_rusage]:
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage
        if time.monotonic() - began > _BY_THE_CLOCK:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return status, usage
        time.sleep(0.002)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
