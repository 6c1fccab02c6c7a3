"""The flags that send work to a cluster, of every command that can, and what they mean.

Knows click; imports nothing heavy before a flag needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lvdm_engines.ranges import WholeRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from lvdm_rt.scale.cluster import ClusterOptions

_HERE = "local"  # the address of who gives none

# fmt: off
RAY_FLAGS = (
    click.option("--ray", is_flag=False, flag_value=_HERE, metavar="[ADDRESS]",
                 help="Let workers do it: on the Ray cluster at HOST:PORT, else on this machine."),
    click.option("--workers", type=WholeRange(1, 1024), metavar="N",
                 help="How many; as many as there is room for, if not given."),
    click.option("--cpus-per-worker", type=WholeRange(1, 1024), metavar="N",
                 help="CPU cores of each worker, in place of a GPU where there are GPUs."),
)
# fmt: on


def ray_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that send its work to a cluster."""
    for flag in reversed(RAY_FLAGS):
        command = flag(command)
    return command


def cluster_of(flags: dict[str, Any]) -> ClusterOptions | None:
    """Return the cluster that flags ask for, None for this process alone.

    Raises click.UsageError for what means nothing without it, or nothing with it.
    """
    if flags["ray"] is None:
        for name in ("workers", "cpus_per_worker"):
            if flags[name] is not None:
                flag = name.replace("_", "-")
                raise click.UsageError(f"--{flag} belongs to --ray, which was not given")
        return None
    if flags.get("preview") is not None:
        raise click.UsageError("--preview shows what this process samples; leave out --ray")
    from lvdm_rt.scale.cluster import ClusterOptions

    return ClusterOptions(
        address=None if flags["ray"] == _HERE else flags["ray"],
        workers=flags["workers"],
        cpus=flags["cpus_per_worker"],
    )
