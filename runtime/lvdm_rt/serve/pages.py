"""The page at `/` and its parts, as files of this package; they hold nothing of any job.

Browsers are told to load nothing from elsewhere, and to let no other page frame this one.
"""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_KINDS = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}


def page_routes() -> list[Route]:
    """Return the routes of the page."""
    found = [file for file in files("lvdm_rt.serve").joinpath("page").iterdir() if file.is_file()]
    routes = []
    for file in found:
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if kind is None:
            continue
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        routes.append(Route(path, _given(file.read_bytes(), kind), methods=["GET"]))
    return routes


def _given(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def given(_: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return given
