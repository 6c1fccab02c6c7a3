"""What runs in an actor of a cluster; knows nothing of what it holds, or of who asks."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any


class ClusterWorker:
    """What runs in an actor: opens what it holds before its first piece, also after a restart."""

    def __init__(self, opening: Callable[[], Any]) -> None:
        self._opening = opening
        self._held: Any = None

    def version(self) -> str:
        """Return which version of this package does pieces here."""
        return version("lvdm-rt")

    def open(self) -> None:
        """Open what pieces are done with."""
        if self._held is None:
            self._held = self._opening()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Do one piece."""
        self.open()
        return function(self._held, *arguments)
