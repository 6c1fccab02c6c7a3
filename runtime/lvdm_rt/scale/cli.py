"""The command `batch`: what it says on the way, and how it ends.

Heavy modules are imported once it runs: `--help` answers at once.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.command_line import log_as_events, tell
from lvdm_engines.errors import LvdmError, one_line
from lvdm_rt.commands.voice import listen, style_of, typed
from lvdm_rt.scale.batch_flags import PARAMETERS, asked, workers_of

if TYPE_CHECKING:
    from lvdm_rt.scale.batch import Batch, Workers
    from lvdm_rt.scale.batch_done import JobRecord

_MOST_TOLD = 20  # failures in full; the record has all


@click.command(params=PARAMETERS)
def batch(**flags: Any) -> int:
    """Make the videos of a list of jobs.

    Each line of it is a JSON object or a prompt.

    What a line does not say is as the options say. The same command again makes what is missing.
    """
    listen(flags["verbose"], quiet=flags["quiet"])
    if flags["progress"] == "json":
        log_as_events()
    ask = asked(flags, typed())
    workers = workers_of(flags, ask)
    from lvdm_rt.commands.making import may_pass
    from lvdm_rt.scale.batch import planned

    said = _Said(flags)
    try:
        with planned(ask) as batch:
            said.begin(batch)
            if not flags["check"]:
                _run(batch, said, workers)
    except (KeyboardInterrupt, LvdmError, OSError, MemoryError) as err:
        if said.made or (said.begun and (isinstance(err, KeyboardInterrupt) or may_pass(err))):
            err.add_note(said.left())
        raise
    said.end()
    return 1 if said.failed else 0


def _run(batch: Batch, said: _Said, workers: Workers | None) -> None:
    from contextlib import closing

    from lvdm_rt.commands.telling import STYLES, telling

    style = next(known for known in STYLES if known == style_of(said.flags))
    said.begun = True
    with (
        telling(style, sys.stderr, "lvdm-rt") as progress,
        closing(batch.run(progress, workers)) as records,
    ):
        for record in records:
            said.record(record)


class _Said:
    """What was said so far, and so what is to be said in the end."""

    def __init__(self, flags: dict[str, Any]) -> None:
        self.flags = flags
        self.begun = False
        self.done = self.jobs = self.missing = 0
        self.made: list[str] = []
        self.failed: list[JobRecord] = []
        self._started = time.monotonic()
        self._events = flags["progress"] == "json"

    def begin(self, batch: Batch) -> None:
        """Say what there is to do, and what cannot be done."""
        plan = batch.plan
        self.jobs, self.done, self.missing = plan.jobs, len(plan.done), plan.missing
        if self._events:
            numbers = {"done": self.done, "missing": self.missing, "failed": len(plan.failed)}
            _event("start", out=self.flags["out"], jobs=self.jobs, **numbers)
        for record in plan.failed:
            self.record(record)

    def record(self, record: JobRecord) -> None:
        """Say what became of a job."""
        if record.status == "done":
            self.made.append(str(record.name))
        else:
            self.failed.append(record)
        if self._events:
            _event("job", **_facts(record))
        elif record.status == "failed" and len(self.failed) <= _MOST_TOLD:
            _say(_line(record))
        elif record.status == "failed" and len(self.failed) == _MOST_TOLD + 1:
            _say("there are more; each has its line in the record")

    def left(self) -> str:
        """Return what is kept of a batch that was ended, and how to go on."""
        command = shlex.join(["lvdm-rt", *sys.argv[1:]])
        done = self.done + len(self.made)
        return f"{done} of {self.jobs} videos are done and kept; continue with: {command}"

    def end(self) -> None:
        """Say what was made."""
        flags, seconds = self.flags, round(time.monotonic() - self._started, 3)
        told = {
            "out": flags["out"],
            "jobs": self.jobs,
            "done": self.done + len(self.made),
            "made": self.made,
            "failed": [_facts(record) for record in self.failed],
            "seconds": seconds,
        }
        if self._events:
            _event("done", **told)
        if flags["as_json"]:
            print(json.dumps(told))
        elif flags["check"]:
            _say(
                f"{self.missing} of {self.jobs} videos are to be made, {self.done} are done, "
                f"{len(self.failed)} cannot be made"
            )
        elif not flags["quiet"] and not self._events:
            _say(
                f"made {len(self.made)} of {self.jobs} videos in {flags['out']} in {seconds:.1f} s;"
                f" {self.done} were done before, {len(self.failed)} failed"
            )


def _facts(record: JobRecord) -> dict[str, Any]:
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(record)
    return facts


def _line(record: JobRecord) -> str:
    """Return a failure in one line: which job it is, and why."""
    places = [None if record.line is None else f"line {record.line}", record.name]
    return f"{', '.join(place for place in places if place)}: {record.reason}"


def _say(line: str) -> None:
    tell(f"lvdm-rt: {one_line(line)}")


def _event(name: str, /, **facts: Any) -> None:
    from lvdm_rt.commands.telling import event

    event(sys.stderr, name, **facts)
