"""The routes: what is read from a request, and which answer it gets. All work is the service's."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from lvdm_engines.atomic import remove
from lvdm_engines.errors import quoted
from lvdm_rt.serve.answers import answer, error_answer
from lvdm_rt.serve.api import model_facts, parse_request
from lvdm_rt.serve.conditions import upload_suffix
from lvdm_rt.serve.gate import Gate, GateRules
from lvdm_rt.serve.limits import ServeLimits
from lvdm_rt.serve.live import live_routes
from lvdm_rt.serve.pages import page_routes
from lvdm_rt.serve.pictures import VARIANTS
from lvdm_rt.serve.refusals import RefusedError
from lvdm_rt.serve.service import Asking, Service

_MOST_LISTED = 100
_LONGEST_KEY = 255
_MOST_FIELDS = 32
_LONGEST_FIELD = 64 << 10  # bytes
_BLOCK = 1 << 20

Handler = Callable[[Request], Awaitable[Response]]


def make_app(service: Service, rules: GateRules) -> Starlette:
    """Return the application of a service."""
    routes = [
        Route("/v1/videos", _create(service), methods=["POST"]),
        Route("/v1/videos", _list(service), methods=["GET"]),
        Route("/v1/videos/{id}", _get(service), methods=["GET"]),
        Route("/v1/videos/{id}", _delete(service), methods=["DELETE"]),
        Route("/v1/videos/{id}/content", _content(service), methods=["GET"]),
        *live_routes(service),
        *page_routes(),
        Route("/v1/models", _models(service), methods=["GET"]),
        Route("/health", _health, methods=["GET"]),
        Route("/ready", _ready(service), methods=["GET"]),
        Route("/metrics", _metrics(service), methods=["GET"]),
    ]
    middleware = [Middleware(Gate, rules)]
    if rules.origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=sorted(rules.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Range"],
        )
        middleware.insert(0, cors)
    handlers: Mapping[Any, Any] = {
        RefusedError: _refused,
        HTTPException: _http_error,
        Exception: _fault,
    }
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def _refused(_: Request, err: Exception) -> Response:
    return error_answer(err if isinstance(err, RefusedError) else RefusedError(err))


def _http_error(request: Request, err: Exception) -> Response:
    status = err.status_code if isinstance(err, HTTPException) else 500
    told = {404: "there is no such path", 405: f"{request.method} is not possible here"}
    detail = err.detail if isinstance(err, HTTPException) else "the request is malformed"
    return error_answer(RefusedError(told.get(status, detail), status, "error"))


def _fault(_: Request, __: Exception) -> Response:
    told = "something went wrong in the server; its log says what"
    return error_answer(RefusedError(told, 500, "server_error"))


def _create(service: Service) -> Handler:
    reading = asyncio.Semaphore(service.limits.uploads)
    coming = Counter[str]()

    async def create(request: Request) -> Response:
        client = request.client.host if request.client else ""
        with _counted(coming, client, service.limits):
            return await taken(request, client)

    async def taken(request: Request, client: str) -> Response:
        key = request.headers.get("idempotency-key")
        if key is not None and not 0 < len(key) <= _LONGEST_KEY:
            raise RefusedError(
                f"got an Idempotency-Key of {len(key)} characters, expected 1 to 255"
            )
        if key is None:  # or the job may be there already
            await run_in_threadpool(service.check_room, client)
        upload = service.store.folder / "conditions" / f"video_{uuid4().hex}.upload"
        try:
            try:
                async with asyncio.timeout(service.limits.body_seconds):
                    fields, kept = await _read(request, upload)
            except TimeoutError as err:
                raise RefusedError("the request took too long to come", 408, "timeout") from err
            asking = Asking(fields=parse_request(fields), client=client, key=key, upload=kept)
            async with nullcontext() if kept is None else reading:
                job = await run_in_threadpool(service.accept, asking)
        finally:
            for left in upload.parent.glob(f"{upload.name}*"):
                remove(left)
        return answer(service.told(job))

    return create


@contextmanager
def _counted(coming: Counter[str], client: str, limits: ServeLimits) -> Iterator[None]:
    """Count a request until it is answered: what is on its way takes space before it is a job."""
    if coming[client] >= limits.client_jobs or coming.total() >= limits.queue:
        raise RefusedError(
            "too many requests are on their way at once; send this again when one is answered",
            429,
            "too_many_requests",
            retry_after=1,
        )
    coming[client] += 1
    try:
        yield
    finally:
        coming[client] -= 1
        if not coming[client]:
            del coming[client]


async def _read(request: Request, upload: Path) -> tuple[object, Path | None]:
    """Return the fields of a request, and the file that was uploaded with them."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, upload)
    try:
        fields = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise RefusedError(f"got no JSON ({err}), expected one object", code="not_json") from err
    if isinstance(fields, dict) and "input_reference" in fields:
        raise RefusedError(
            "got input_reference in JSON; upload the file itself, in a multipart form",
            param="input_reference",
        )
    return fields, None


class _WholeForm(Request):
    """A form that ends with its boundary; without it the parser leaves out the last part."""

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body. Raises RefusedError for one that was cut."""
        end = b""
        async for piece in super().stream():
            end = (end + piece)[-4:]
            yield piece
        if not end.rstrip(b"\r\n").endswith(b"--"):
            raise RefusedError("got a form without its end; send it whole", code="not_whole")


async def _read_form(request: Request, upload: Path) -> tuple[dict[str, Any], Path | None]:
    limits = {"max_files": 1, "max_fields": _MOST_FIELDS, "max_part_size": _LONGEST_FIELD}
    async with _WholeForm(request.scope, request.receive).form(**limits) as form:
        fields: dict[str, Any] = dict(form.multi_items())
        if len(fields) < len(form.multi_items()):
            raise RefusedError("got a field twice, expected each once")
        film = fields.pop("input_reference", None)
        for name, value in fields.items():
            if isinstance(value, UploadFile):
                raise RefusedError(f"got a file as {quoted(name)}, expected it as input_reference")
        if film is None:
            return fields, None
        if not isinstance(film, UploadFile):
            raise RefusedError("got input_reference without a file; upload one with a file name")
        kept = upload.with_name(upload.name + upload_suffix(film.filename))
        with kept.open("xb") as file:
            while block := await film.read(_BLOCK):
                await run_in_threadpool(file.write, block)
    return fields, kept


def _list(service: Service) -> Handler:
    async def listed(request: Request) -> Response:
        asked = request.query_params
        limit, order = asked.get("limit", "20"), asked.get("order", "desc")
        count = int(limit) if limit.isdecimal() and len(limit) < 10 else 0
        if not 1 <= count <= _MOST_LISTED:
            raise RefusedError(
                f"got limit {quoted(limit)}, expected 1 to {_MOST_LISTED}", param="limit"
            )
        if order not in ("asc", "desc"):
            raise RefusedError(f"got order {quoted(order)}, expected asc or desc", param="order")
        after = asked.get("after")
        if after is not None:
            await run_in_threadpool(service.get, after)
        newest = order == "desc"
        jobs = await run_in_threadpool(service.store.page, after, count + 1, newest=newest)
        shown = [service.told(job) for job in jobs[:count]]
        ends = {"first_id": shown[0].id, "last_id": shown[-1].id} if shown else {}
        more = len(jobs) > len(shown)
        return answer({"object": "list", "data": shown, "has_more": more, **ends})

    return listed


def _get(service: Service) -> Handler:
    async def get(request: Request) -> Response:
        job = await run_in_threadpool(service.get, request.path_params["id"])
        return answer(service.told(job))

    return get


def _delete(service: Service) -> Handler:
    async def delete(request: Request) -> Response:
        job = request.path_params["id"]
        cancelled = await run_in_threadpool(service.delete, job)
        told = {"id": job, "object": "video.deleted", "deleted": cancelled is None}
        return answer(told if cancelled is None else {**told, "status": cancelled.status})

    return delete


def _content(service: Service) -> Handler:
    async def content(request: Request) -> Response:
        variant = request.query_params.get("variant", "video")
        job = request.path_params["id"]
        if variant == "video":
            path = await run_in_threadpool(service.result, job)
            return FileResponse(path, media_type="video/mp4", filename=path.name)
        if variant not in VARIANTS:
            raise RefusedError(
                f"got variant {quoted(variant)}, expected video, {' or '.join(VARIANTS)}",
                param="variant",
            )
        path = await run_in_threadpool(service.picture, job, variant)
        return FileResponse(path, media_type="image/png", filename=path.name)

    return content


def _models(service: Service) -> Handler:
    manifest = service.pipeline.manifest
    told = {"id": manifest.name, "object": "model", "created": 0, "owned_by": "lvdm-rt"}
    facts = {**told, "lvdm_rt": model_facts(manifest, service.limits.frames)}

    async def models(_: Request) -> Response:
        return answer({"object": "list", "data": [facts]})

    return models


async def _health(_: Request) -> Response:
    return answer({"status": "ok"})


def _ready(service: Service) -> Handler:
    async def ready(_: Request) -> Response:
        return answer({"ready": service.is_ready}, 200 if service.is_ready else 503)

    return ready


def _metrics(service: Service) -> Handler:
    async def metrics(_: Request) -> Response:
        text = await run_in_threadpool(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return metrics
