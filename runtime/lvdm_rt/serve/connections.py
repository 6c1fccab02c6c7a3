"""Connections on which nothing is asked for: ended after a while, so that they keep nobody out.

Knows the protocol of uvicorn, and no request.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

_PATIENCE = 20.0  # seconds between two looks


class AskingProtocol(H11Protocol):
    """HTTP/1.1 on a connection that must have a whole head of a request now and then.

    By h11, whatever else is installed, because that limits how long a head can be.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and look whether something is asked for."""
        super().connection_made(transport)
        self._look_later(is_idle=True)

    def _look_later(self, *, is_idle: bool) -> None:
        self.loop.call_later(_PATIENCE, self._look, self.cycle, is_idle)

    def _look(self, last: RequestResponseCycle | None, was_idle: bool) -> None:
        """End the connection if nothing was asked for since the last look."""
        if self.transport.is_closing():
            return
        asked: RequestResponseCycle | None = self.cycle
        is_idle = asked is None or asked.response_complete
        if is_idle and was_idle and asked is last:
            self.transport.close()
        else:
            self._look_later(is_idle=is_idle)
