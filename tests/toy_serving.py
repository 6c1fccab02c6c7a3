"""Servers of toy models: a service over arrays, a client of its routes, and real processes."""

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
from toy_arrays import make_manifest, make_sessions
from toy_files import GENERATE, with_tests_on_path

from lvdm_rt import Pipeline
from lvdm_rt.serve.metrics import Metrics
from lvdm_rt.serve.service import Service
from lvdm_rt.serve.store import JobStore

PATIENCE = 60.0  # seconds


@contextmanager
def serving(folder, sessions=None, manifest=None, *, start=True, **how):
    """Give a service in `folder`, of the model of arrays unless told otherwise."""
    manifest = manifest or make_manifest()
    folder.mkdir(exist_ok=True)
    store = JobStore(folder)
    metrics = Metrics(lambda: store.count("queued"))
    sessions = make_sessions(manifest) if sessions is None else sessions
    with Pipeline(manifest, sessions, on_call=metrics.step) as pipeline:
        service = Service(pipeline, store, metrics, **how)
        if start:
            service.start()
        try:
            yield service
        finally:
            if service.worker.is_alive:
                service.stop(0)
            store.close()


def until(holds, seconds=PATIENCE):
    """Wait until something holds and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)
    return found


class ServerProcess:
    """`lvdm-rt serve` as a process of its own, and what it answers."""

    def __init__(self, folder: Path, *flags: str, **environment: str) -> None:
        words = [sys.executable, "-c", GENERATE, "serve", "--folder", str(folder), "--port", "0"]
        words += ["--backend", "cpu", "--threads", "1", "-q", *flags]
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**with_tests_on_path(), "PYTHONWARNINGS": "error", **environment},
        )
        self.url = self.process.stdout.readline().strip()

    def ask(self, path, fields=None, method=None, **how):
        """Return the decoded answer; `fields` are sent as JSON."""
        method = method or ("GET" if fields is None else "POST")
        answer = httpx.request(method, self.url + path, json=fields, timeout=PATIENCE, **how)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ended(self, job):
        """Wait for the end of a job and return it."""
        ends = ("completed", "failed", "cancelled")
        path = f"/v1/videos/{job}"
        until(lambda: self.ask(path)["status"] in ends)
        return self.ask(path)

    def end(self, signal):
        """Send a signal and return the exit code and what was said on stderr."""
        self.process.send_signal(signal)
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
