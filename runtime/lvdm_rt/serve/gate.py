"""What every request must pass before a route sees it; one ASGI application around another.

In this order: a `Host` that is meant for this server (a page that rebinds its own name to
127.0.0.1 sends that name), no other site's page behind what changes something, the bearer token,
and a body that is small enough, whether or not its length is announced. Knows no jobs.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lvdm_rt.serve.answers import error_answer
from lvdm_rt.serve.refusals import RefusedError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OPEN = ("/", "/health", "/ready")  # without a token: no job and no number is told there
_PAGE = "/page/"
_READING = ("GET", "HEAD", "OPTIONS")
_FORM = "multipart/form-data"
_BODIES = ("application/json", _FORM)
_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, kw_only=True)
class GateRules:
    """Who may come in: names of this server (None for any), a token, and other sites' origins."""

    hosts: frozenset[str] | None = frozenset(LOOPBACK)
    token: str | None = None
    origins: frozenset[str] = frozenset()
    body: int = 64 << 20  # bytes of a form, which may hold a video
    fields: int = 1 << 20  # bytes of any other request


class Gate:
    """Answers what may not pass, and hands on the rest."""

    def __init__(self, app: ASGIApp, rules: GateRules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        hardened = self._hardened(send)
        most = self._rules.body if _kind(headers) == _FORM else self._rules.fields
        try:
            self._check(scope, headers, most)
        except RefusedError as err:
            await error_answer(err)(scope, receive, hardened)
            return
        await self._app(scope, _limited(receive, most), hardened)

    def _check(self, scope: Scope, headers: Headers, most: int) -> None:
        """Raise RefusedError unless the request may pass."""
        rules = self._rules
        host = headers.get("host", "")
        if rules.hosts is not None and _name(host) not in rules.hosts:
            raise RefusedError(
                f"got Host {host[:60]!r}, which is not a name of this server; --allow-host adds it",
                421,
                "unknown_host",
            )
        if scope["method"] not in _READING:
            self._check_sender(headers, host)
        path = scope["path"]
        if rules.token is not None and path not in _OPEN and not path.startswith(_PAGE):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), rules.token.encode())
            if scheme.lower() != "bearer" or not same:
                raise RefusedError(
                    "got no valid token; send Authorization: Bearer TOKEN", 401, "invalid_api_key"
                )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > most:
            raise _too_large(most)

    def _check_sender(self, headers: Headers, host: str) -> None:
        """Refuse what a page of another site can send, and bodies that it may send unasked."""
        origin = headers.get("origin")
        allowed = origin in self._rules.origins
        own = origin is None or origin.partition("://")[2].lower() == host.lower()
        site = headers.get("sec-fetch-site", "none")
        if not allowed and not (own and site in ("none", "same-origin")):
            raise RefusedError(
                f"got a request from a page of {(origin or 'another site')[:60]!r}; --allow-origin "
                "lets it in",
                403,
                "cross_site",
            )
        kind = _kind(headers)
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if has_body and kind not in _BODIES:
            raise RefusedError(
                f"got content of type {kind[:60]!r}, expected {' or '.join(_BODIES)}",
                415,
                "unsupported_media_type",
            )

    def _hardened(self, send: Send) -> Send:
        """Add what browsers should know of every answer."""

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if not self._rules.origins:
                    headers["Cross-Origin-Resource-Policy"] = "same-origin"
            await send(message)

        return hardened


def _limited(receive: Receive, most: int) -> Receive:
    """Count a body while it comes."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise _too_large(most)
        return message

    return limited


def _kind(headers: Headers) -> str:
    """Return the type of a body without its parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _name(host: str) -> str:
    """Return the name in a `Host`, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _too_large(most: int) -> RefusedError:
    return RefusedError(f"got more than the {most} bytes a request may have", 413, "too_large")
