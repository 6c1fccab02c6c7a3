"""How much a command says on the way, and in which form; knows click's context and loggers.

Flags are those of `generate` of the same names.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import click


def listen(verbose: int, *, quiet: bool) -> None:
    """Let the libraries say more on stderr; which backend runs, unless asked to be quiet."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    for name in ("lvdm_engines", "lvdm_rt"):
        logging.getLogger(name).setLevel(level)
    opening = logging.WARNING if quiet and not verbose else min(level, logging.INFO)
    for name in ("lvdm_engines.opening", "lvdm_engines.backends.trial"):
        logging.getLogger(name).setLevel(opening)


def typed() -> set[str]:
    """Return the names of the flags that stand on the command line."""
    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is source}


def style_of(flags: dict[str, Any]) -> str:
    """Return the style of progress that is asked for, of those in `telling`."""
    if flags["progress"] != "auto":
        return str(flags["progress"])
    if flags["quiet"]:
        return "none"
    return "bar" if sys.stderr.isatty() else "lines"
