"""A Ray cluster: reaching one or starting one, and what of it each worker gets.

Knows addresses and resources; nothing of what workers do. Ray runs without dashboard and reports
nothing to anybody.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lvdm_engines.backends.processor import usable_cores
from lvdm_engines.errors import ClusterError, OptionsError, one_line, quoted
from lvdm_rt.scale.crew import Crew, Share

_log = logging.getLogger(__name__)

CORES = 4  # of a worker on a CPU, unless asked otherwise or no machine has as many
_MOST_PER_CORE = 16  # workers of one core each, on this machine alone
_QUIET = {  # has to be set before ray is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of what it will do one day
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # else it prints on stdout, where a video may go
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # of 40 s each, where something else answers at an address
}


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Where workers run, and how many.

    `address` is HOST:PORT of a cluster that this machine is part of; without one a cluster is
    started on this machine, and ended afterwards. `workers` for which there is no room join once
    there is; None means as many as there is room for. Each has a GPU where the cluster has any and
    no `cpus` are asked for, else so many CPU cores. `seconds` may pass until there is room for one.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int | None = None
    seconds: float = 120.0

    def __post_init__(self) -> None:
        """Raise OptionsError for numbers that mean nothing."""
        for name, number in (("workers", self.workers), ("cpus", self.cpus)):
            if number is not None and (type(number) is not int or number < 1):
                raise OptionsError(f"got {name} {quoted(number)}, expected 1 or more, or None")


@contextmanager
def connect(
    options: ClusterOptions, opening: Callable[[Share], Callable[[], Any]]
) -> Iterator[Crew]:
    """Give workers of a cluster, at least one of which is ready, and end them afterwards.

    `opening` is told what a worker will have, and returns the function (pickled) with which each
    opens what it holds.

    Raises ClusterError where ray is missing, the address does not answer, or no machine has what a
    worker needs; and whatever the first worker that cannot open what it should hold raises.
    """
    ray = load_ray()
    with _joined(ray, options):
        share = _share(ray, options)
        crew = Crew(ray, share, opening(share))
        try:
            crew.await_first(options.seconds)
            yield crew
        finally:
            crew.close()


def load_ray() -> Any:
    """Import ray so that it keeps quiet. Raises ClusterError where it is not installed."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as err:
        raise ClusterError("ray is not installed; pip install 'lvdm-rt[ray]'") from err
    return ray


@contextmanager
def _joined(ray: Any, options: ClusterOptions) -> Iterator[None]:
    """Be part of a cluster, or of one of its own, unless this process is already.

    Ray's own processes end with the thread that started them; in the main one Ray would take
    SIGTERM for itself.
    """
    if ray.is_initialized():
        yield
        return
    with ThreadPoolExecutor(1, thread_name_prefix="lvdm-rt ray") as thread:
        try:
            thread.submit(_join, ray, options).result()
            _take_back(signal.SIGTERM)
            yield
        finally:
            thread.submit(ray.shutdown).result()


def _take_back(number: int) -> None:
    """Let Python handle a signal again, for which Ray's native part has put itself in between."""
    handler = signal.getsignal(number)
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(number, handler)


def _join(ray: Any, options: ClusterOptions) -> None:
    """Connect to a cluster, or start one. Raises ClusterError."""
    how: dict[str, Any] = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if options.address is None:
        cores, wanted = usable_cores(), (options.workers or 1) * (options.cpus or 1)
        if wanted > _MOST_PER_CORE * cores:
            raise ClusterError(
                f"got {options.workers or 1} workers of {options.cpus or 1} cores on this machine, "
                f"which has {cores}; ask for {_MOST_PER_CORE * cores} together at most"
            )
        how |= {"address": "local", "num_cpus": max(cores, wanted)}
    else:
        _check_address(options.address, options.seconds)
        how |= {"address": options.address}
    where = options.address or "this machine"
    try:
        ray.init(**how)
    except Exception as err:  # which Ray raises itself where a node does not start
        raise ClusterError(f"{where}: no cluster can be used: {one_line(str(err), 300)}") from err


def _check_address(address: str, seconds: float) -> None:
    """Raise ClusterError unless something listens there; Ray itself would ask for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal():
        raise ClusterError(
            f"got address {quoted(address)}, expected HOST:PORT of a cluster, as "
            "`ray start --head` tells it"
        )
    try:
        socket.create_connection((host, int(port)), min(seconds, 10.0)).close()
    except (OSError, OverflowError) as err:
        raise ClusterError(
            f"{address}: nothing answers ({err}); start a cluster there with `ray start --head`, "
            "or leave the address out"
        ) from err


def _share(ray: Any, options: ClusterOptions) -> Share:
    """Return what each worker gets. Raises ClusterError where no machine has that."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_gpu = options.cpus is None and any(machine.get("GPU", 0) >= 1 for machine in machines)
    if on_gpu:
        rooms = [int(machine.get("GPU", 0)) for machine in machines]
        return Share(options.workers or sum(rooms), 0, 1)
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    largest = max(cores, default=0)
    wanted = options.cpus
    if wanted is None:
        most = min(CORES, largest)
        wanted = max(1, min(most, sum(cores) // (options.workers or 1)))
    if wanted > largest:
        raise ClusterError(
            f"got {wanted} CPU cores for each worker, but no machine of the cluster has more than "
            f"{largest}; ask for fewer"
        )
    room = sum(count // wanted for count in cores)
    if options.workers is not None and options.workers > room:
        _log.warning("the cluster has room for %d of %d workers now", room, options.workers)
    return Share(options.workers or room, wanted, 0)
