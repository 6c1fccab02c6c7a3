"""What a shell offers while a command line is typed: names that are known, and paths.

Knows click's protocol with shells; nothing of what a name stands for.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    shell_complete,
)

Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def offer(
    names: Callable[[], Iterable[str]] = tuple, paths: Literal["file", "dir"] | None = None
) -> Offer:
    """Return the `shell_complete` of an option: names, and paths of one kind as the shell does."""

    def offered(
        _context: click.Context, _option: click.Parameter, begun: str
    ) -> list[CompletionItem]:
        # the kind of paths first: bash forgets what came before
        kind = [CompletionItem(begun, type=paths)] if paths else []
        return [*kind, *(CompletionItem(name) for name in names() if name.startswith(begun))]

    return offered


def _builtin() -> Iterable[str]:
    from lvdm_engines.bundle import builtin_bundles

    return builtin_bundles()


PATH = offer(paths="file")
BUNDLE = offer(_builtin, "dir")
DATA = offer(lambda: ["synth"], "dir")


class _Bash(BashComplete):
    """Click's own, which offers folders only where no name fits, and nothing after `--option=`."""

    source_template = BashComplete.source_template.replace(
        "compopt -o dirnames", "compopt -o plusdirs"
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words so far, without the = that is a word to bash, and the one begun."""
        words, begun = super().get_completion_args()
        return [word for word in words if word != "="], begun


def complete(command: click.Command, name: str, variable: str, asked: str) -> int:
    """Print the script of a shell, or what it may offer; returns an exit code."""
    add_completion_class(_Bash)
    return shell_complete(command, {}, name, variable, asked)
