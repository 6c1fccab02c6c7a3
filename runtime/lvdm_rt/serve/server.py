"""`lvdm-rt serve` from start to stop: the folder's lock, the pipeline, the socket, and the end."""

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from lvdm_engines import lock
from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.errors import BackendError, OptionsError, VideoError, WorkError, cause
from lvdm_rt.pipeline import Pipeline
from lvdm_rt.serve.app import make_app
from lvdm_rt.serve.connections import AskingProtocol
from lvdm_rt.serve.gate import LOOPBACK, GateRules
from lvdm_rt.serve.limits import ServeLimits
from lvdm_rt.serve.metrics import Metrics
from lvdm_rt.serve.service import Keeping, Service
from lvdm_rt.serve.store import JobStore
from lvdm_rt.video import missing_encoder

_log = logging.getLogger(__name__)

_LAST_ANSWERS = 5  # seconds for what is being answered when the server stops
_POLL = 0.02
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class ServeJob:
    """What to serve, where, to whom, and how much of it; see the options of `lvdm-rt serve`."""

    bundle: str = "sky-tiny"
    folder: Path = Path("lvdm-rt-videos")
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    backend: str = "auto"
    session: SessionOptions | None = None
    batch_size: int | None = None
    exact: bool = False
    grace: float = 10.0
    limits: ServeLimits = field(default_factory=ServeLimits)
    keeping: Keeping = field(default_factory=Keeping)


def serve(job: ServeJob, ready: Callable[[str], None]) -> None:
    """Serve until KeyboardInterrupt, then stop in order; `ready` is told the address.

    Raises LvdmError before anything is served.
    """
    check_open_to(job)
    if missing := missing_encoder("mp4"):
        raise VideoError(f"cannot make videos to be served: {missing}")
    with ExitStack() as stack:
        stack.enter_context(_owned(job.folder))
        listening = stack.enter_context(_bound(job.host, job.port))
        store = JobStore(job.folder)
        stack.callback(store.close)
        metrics = Metrics(lambda: store.count("queued"))
        pipeline = stack.enter_context(
            Pipeline.open(job.bundle, job.backend, job.session, metrics.step)
        )
        service = Service(
            pipeline,
            store,
            metrics,
            limits=job.limits,
            keeping=job.keeping,
            batch_size=job.batch_size,
            exact=job.exact,
        )
        _serve(job, service, listening, ready)


def _serve(
    job: ServeJob, service: Service, listening: socket.socket, ready: Callable[[str], None]
) -> None:
    """Run the web server in a thread, so that signals find the main one waiting here."""
    server = uvicorn.Server(_config(job, service))
    thread = threading.Thread(
        target=server.run, args=([listening],), name="lvdm-rt serve http", daemon=True
    )
    service.start()
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(_POLL)
        if server.started:
            ready(address(job.host, listening.getsockname()[1]))
        while thread.is_alive():
            thread.join(1)
        raise BackendError("the web server has ended by itself; what is told above says why")
    finally:
        service.stop(job.grace)
        server.should_exit = True
        thread.join()


def _config(job: ServeJob, service: Service) -> uvicorn.Config:
    rules = GateRules(
        hosts=known_hosts(job),
        token=job.token,
        origins=frozenset(job.origins),
        body=job.limits.body,
        fields=job.limits.fields,
    )
    return uvicorn.Config(
        make_app(service, rules),
        http=AskingProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        proxy_headers=bool(job.proxies),
        forwarded_allow_ips=list(job.proxies),
        limit_concurrency=job.limits.connections,
        timeout_graceful_shutdown=_LAST_ANSWERS,
    )


def known_hosts(job: ServeJob) -> frozenset[str] | None:
    """Return the names that a `Host` may have; None for any, where only a token lets in."""
    if job.hosts or _is_loopback(job.host):
        return frozenset({*LOOPBACK, job.host.lower(), *(name.lower() for name in job.hosts)})
    return None


def check_open_to(job: ServeJob) -> None:
    """Refuse to be open to others without a token. Raises OptionsError."""
    if job.token is not None and len(job.token) < _SHORTEST_TOKEN:
        raise OptionsError(
            f"got a token of {len(job.token)} characters, expected {_SHORTEST_TOKEN} or more"
        )
    if job.token is None and not _is_loopback(job.host):
        raise OptionsError(
            f"got host {job.host}, which others can reach, and no token; give one with "
            "--token-file FILE or in LVDM_RT_TOKEN, or leave out --host"
        )
    if job.token is None and (job.proxies or job.hosts):
        raise OptionsError(
            "got a proxy or a name, by which others reach this server, and no token; give one "
            "with --token-file FILE or in LVDM_RT_TOKEN"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(host: str, port: int) -> str:
    """Return the URL of a server."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Make the folder, for nobody else to read, and lock it. Raises WorkError."""
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
        holder = lock.made_and_locked(folder)
    except BlockingIOError as err:
        raise WorkError(
            f"{folder} is in use by another server; stop it, or choose another --folder"
        ) from err
    except OSError as err:
        raise WorkError(f"{folder} cannot be used: {cause(err)}") from err
    try:
        yield
    finally:
        lock.release(holder)


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Take the address, before an engine is opened. Raises OptionsError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(found[0], socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found[4])
    except OSError as err:
        raise OptionsError(
            f"cannot listen on {host} port {port}: {err.strerror or err}; choose another --port"
        ) from err
    with listening:
        yield listening
