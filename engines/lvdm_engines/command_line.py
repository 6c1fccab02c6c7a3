"""What the three commands share: one voice for errors, and what each exit code means.

Exit codes: 0 done · 1 an error that one line explains · 2 usage · 130 interrupted.
Knows no command: it gets one, runs it, and says in one line what went wrong. With `--json` that is
an object on stdout as well, with `--progress json` an event in place of the line.
"""

import _thread
import io
import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from types import FrameType
from typing import Any, NoReturn

import click

from lvdm_engines.errors import LvdmError, cause, no_thread, one_line

HELP = {"help_option_names": ["-h", "--help"]}
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_IMPORTER = "<frozen importlib._bootstrap>"  # the file that frames of an import name
_IGNORED = "ignored due to race condition"  # of a signal that came before it was to be ignored
_LATER = 0.02  # seconds
_unwinding = threading.Event()  # from the first interrupt on
_LONGEST_USAGE = 220  # characters: most of a longer one is what was typed
_HELP_IS_ASKED = getattr(click.exceptions, "NoArgsIsHelpError", ())  # from click 8.2 on
# as torch says it on a CPU, and the system where a library is to be imported
_OUT_OF_MEMORY = re.compile(
    "out of memory|can't allocate memory|failed to map segment|annot allocate|bad_alloc"
)


@dataclass(frozen=True)
class CommandLine:
    """One console script: its command, the extra it needs, and advice when memory runs out."""

    command: click.Command
    extra: str | None
    less_memory: str

    def main(self) -> NoReturn:
        """Run the script with the arguments of this process, and exit."""
        _mend_streams()
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # whatever imports ONNX Runtime here
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background job
                signal.signal(number, _interrupt)
        sys.unraisablehook = _unraisable
        handler = logging.StreamHandler()
        handler.setFormatter(_Line(f"{self.command.name}: %(message)s"))
        logging.basicConfig(handlers=[handler], level=logging.WARNING)
        code = self.run(sys.argv[1:])
        _ignore_signals()  # Python would die of one while it cleans up
        sys.exit(code)

    def run(self, arguments: Sequence[str]) -> int:
        """Run the command and return its exit code; errors are told in the form that is asked."""
        try:
            code = self._invoke(list(arguments))
        except click.exceptions.Exit as end:  # --help, --version
            return end.exit_code
        except click.ClickException as err:
            self._tell(err, err.format_message(), arguments)
            return err.exit_code
        except (click.Abort, KeyboardInterrupt) as err:
            self._tell(err, "interrupted", arguments)
            return 130
        except BrokenPipeError:
            silence_stdout()
            return 1
        except (LvdmError, ImportError, OSError, MemoryError, RuntimeError) as err:
            line = self.explain(err)
            if line is None:
                raise
            self._tell(err, line, arguments)
            return 1
        return code if isinstance(code, int) else 0

    def _invoke(self, arguments: list[str]) -> object:
        """Do what click's own main does, which prints an empty line where it is interrupted."""
        name = self.command.name or ""
        variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
        if asked := os.environ.get(variable):
            from lvdm_engines.completion import complete

            return complete(self.command, name, variable, asked)
        with self.command.make_context(name, arguments) as context:
            return self.command.invoke(context)

    def say(self, message: object) -> None:
        """Print one line on stderr, under the command's name."""
        tell(f"{self.command.name}: {one_line(str(message))}")

    def _tell(self, err: BaseException, message: str, arguments: Sequence[str]) -> None:
        """Say how a command ended that did not end well, with the notes of the error."""
        usage = isinstance(err, click.UsageError)
        kind = "UsageError" if usage else type(err).__name__
        line = "; ".join([message, *getattr(err, "__notes__", ())])
        line = one_line(line, _LONGEST_USAGE).rstrip(".") if usage else one_line(line)
        with suppress(OSError):  # nobody listens any more
            if _has_events(arguments):
                tell(json.dumps({"event": "error", "kind": kind, "message": line}))
            elif isinstance(err, _HELP_IS_ASKED):
                err.show()
            elif isinstance(err, click.UsageError):
                name = self.command.name if err.ctx is None else err.ctx.command_path
                mark = " " if line.endswith("?") else "; "
                self.say(f"{line}{mark}see {name} --help")
            else:
                self.say(line)
        with suppress(OSError):
            if self._prints_json(arguments):
                click.echo(json.dumps({"error": line, "kind": kind}))

    def _prints_json(self, arguments: Sequence[str]) -> bool:
        """Tell whether stdout is for JSON, of a command line that may make no sense."""
        command = self.command
        for word in arguments:
            if isinstance(command, click.Group):
                command = command.commands.get(word, command)
        flags = [o for o in command.params if isinstance(o, click.Option) and o.is_flag]
        # of no command that is known, or a flag, which takes no file name
        is_flag = isinstance(command, click.Group) or any("--json" in o.opts for o in flags)
        return is_flag and "--json" in arguments and "-" not in arguments  # where a video goes

    def explain(self, err: Exception) -> str | None:
        """Say what happened and what to do next; None for what is a fault of this program."""
        if isinstance(err, LvdmError):
            return str(err)
        if isinstance(err, ModuleNotFoundError) and _is_foreign(err.name):
            wanted = f"'lvdm-rt[{self.extra}]'" if self.extra else "lvdm-rt"
            return f"{err.name} is not installed; pip install {wanted}"
        if isinstance(err, OSError):  # e.g. a name that is too long, a device that went away
            place = err.filename or "a file or standard output"
            return f"{place}: {cause(err)}"
        if "can't start new thread" in str(err):
            return str(no_thread(err))
        if isinstance(err, MemoryError) or _OUT_OF_MEMORY.search(str(err)):
            return f"out of memory; {self.less_memory}"
        return None


def tell(line: str) -> None:
    """Print a line on stderr; where that has gone, only what it would have said is lost."""
    with suppress(OSError):
        click.echo(line, err=True)


class _Line(logging.Formatter):
    """One printable line a record, whatever names of files stand in it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return one_line(super().format(record))


class _Event(logging.Formatter):
    """A record as an event, a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        level, message = record.levelname.lower(), one_line(super().format(record))
        return json.dumps({"event": "message", "level": level, "message": message})


def log_as_events() -> None:
    """Let what is logged stand between the events of `--progress json` as one of them."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Line):
            handler.setFormatter(_Event())


def _has_events(arguments: Sequence[str]) -> bool:
    return "--progress=json" in arguments or ("--progress", "json") in pairwise(arguments)


class _Forgiving(io.TextIOWrapper):
    """A stream that nobody may read any more, which must not end what is running."""

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what can be handed on."""
        with suppress(OSError):
            super().flush()


def _mend_streams() -> None:
    """Take the place of standard streams that are closed, so that no file does; escape symbols.

    What a terminal's code page has not, such as × or the … of a cut text, is no reason to fail.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    stream, encoding = sys.stderr, getattr(sys.stderr, "encoding", None)
    raw: Any = getattr(getattr(stream, "buffer", None), "raw", None)
    sys.stderr = _Forgiving(
        raw or io.FileIO(2, "w", closefd=False),
        encoding=encoding,
        errors="backslashreplace",
        write_through=True,
    )


def silence_stdout() -> None:
    """Keep Python from complaining about a closed pipe when it flushes at exit."""
    if sys.stdout is None:  # closed
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_foreign(module: str | None) -> bool:
    """Tell whether a whole package is missing, and not a part of one or of this project."""
    return module is not None and "." not in module and not module.startswith("lvdm_")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Unwind once: what is begun is cleaned up, however often Ctrl-C is pressed meanwhile.

    Not in the middle of an import: native modules lose the exception, or make it an ImportError.
    """
    if _is_importing(frame):
        _again(number)
        return
    _ignore_signals()
    _unwinding.set()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for known in _SIGNALS:
        signal.signal(known, signal.SIG_IGN)


def _again(number: int) -> None:
    """Send a signal to this process a little later, waking the main thread where it waits."""
    if sys.platform == "win32":
        later = threading.Timer(_LATER, _thread.interrupt_main, (number,))
    else:
        main = threading.main_thread().ident
        later = threading.Timer(_LATER, signal.pthread_kill, (main, number))
    later.daemon = True
    later.start()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTER:
            return True
        frame = frame.f_back
    return False


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Interrupt again where a destructor or a callback has swallowed it.

    What an interrupt left half made may complain of that when it goes, as a zip file does.
    """
    if issubclass(lost.exc_type, OSError) and _IGNORED in str(lost.exc_value):
        return
    if issubclass(lost.exc_type, AttributeError) and _unwinding.is_set():
        return
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGINT, _interrupt)
    _again(signal.SIGINT)
