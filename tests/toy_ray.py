"""As much of Ray as a crew asks for, in threads: actors that do a call at a time, and are lost."""

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from types import SimpleNamespace


class ToyRayError(Exception):
    """Ray's own errors."""


class ToyTaskError(ToyRayError):
    """What Ray puts around an error of a call."""

    def __init__(self, cause):
        super().__init__(f"ray::run() somewhere\nTraceback …\n{cause}")
        self.cause = cause


class LostError(BaseException):
    """Raised by a piece of work: its worker is gone, with all that it held."""


class ToyRay:
    """A cluster; `hold()` says when a worker may start, or start again."""

    exceptions = SimpleNamespace(RayError=ToyRayError, RayTaskError=ToyTaskError)

    def __init__(self, hold=lambda: None):
        self.hold = hold
        self.asked = {}
        self.killed = []

    def remote(self, **asked):
        self.asked = asked
        return lambda kind: SimpleNamespace(remote=lambda *how: ToyActor(self, kind, how))

    def kill(self, actor):
        self.killed.append(actor)
        actor.calls.put(None)

    def available_resources(self):
        return {"CPU": 3.0}


class ToyActor:
    """A worker, which is made anew when it is lost."""

    def __init__(self, ray, kind, how):
        self.calls = SimpleQueue()
        self.version, self.open = ToyMethod(self, "version"), ToyMethod(self, "open")
        self.run = ToyMethod(self, "run")
        thread = threading.Thread(target=self._serve, args=(ray, kind, how), daemon=True)
        thread.start()

    def _serve(self, ray, kind, how):
        held = None
        while (call := self.calls.get()) is not None:
            name, arguments, future = call
            try:
                if held is None:
                    ray.hold()
                    held = kind(*how)
                future.set_result(getattr(held, name)(*arguments))
            except LostError:
                held = None
                future.set_exception(ToyRayError("the actor died\nof nothing in particular"))
            except Exception as err:  # noqa: BLE001 - as Ray does
                future.set_exception(ToyTaskError(err))


class ToyMethod:
    """What is called on an actor."""

    def __init__(self, actor, name):
        self._actor, self._name = actor, name
        self.retries = None

    def options(self, *, max_task_retries):
        self.retries = max_task_retries
        return self

    def remote(self, *arguments):
        if any(type(argument).__name__ == "generator" for argument in arguments):
            raise TypeError("cannot pickle 'generator' object")
        future = Future()
        self._actor.calls.put((self._name, arguments, future))
        return SimpleNamespace(future=lambda: future)
