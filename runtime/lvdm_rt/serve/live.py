"""What browsers and others see of a video while it is made: its film as it grows, and events.

    GET /v1/videos/{id}/stream      fragmented MP4, from the first frame on, whenever one comes
    GET /v1/videos/{id}/events      server-sent events: status, progress, frames, preview

Knows HTTP, the broadcaster and live films; nothing of how videos are made.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lvdm_rt.serve.broadcast import Advanced, FilmGrew, News, Previewed, StatusChanged
from lvdm_rt.serve.film import frame_rate
from lvdm_rt.serve.live_film import live_path
from lvdm_rt.serve.refusals import RefusedError
from lvdm_rt.serve.service import Service
from lvdm_rt.video.fragmented import codec_name, fragments, live_codec
from lvdm_rt.video.png_file import png_bytes

_BLOCK = 1 << 18  # bytes of a film that are read at once
_BEAT = 15.0  # seconds without news after which a comment keeps the connection open
_BETWEEN = 0.1  # seconds between two events of progress or pictures
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # or proxies collect it first

Handler = Callable[[Request], Awaitable[Response]]


def live_routes(service: Service) -> list[Route]:
    """Return the routes of what is being made."""
    return [
        Route("/v1/videos/{id}/stream", _stream(service), methods=["GET"]),
        Route("/v1/videos/{id}/events", _events(service), methods=["GET"]),
    ]


def _stream(service: Service) -> Handler:
    async def stream(request: Request) -> Response:
        job = await run_in_threadpool(service.get, request.path_params["id"])
        if job.status in ("failed", "cancelled"):
            raise RefusedError(
                f"{job.id} is {job.status} and has no pictures; ask for another", 404, "no_content"
            )
        if job.status == "completed":
            parts = fragments(service.result(job.id))
            start = await run_in_threadpool(next, parts)
            return _film(chain([start], parts), codec_name(start))
        size = service.pipeline.manifest.model.frame_size
        codec = await run_in_threadpool(live_codec, size, frame_rate(job))
        return _film(_growing(service, job.id), codec)

    return stream


def _film(parts: AsyncIterator[bytes] | chain[bytes], codec: str) -> Response:
    kind = f'video/mp4; codecs="{codec}"'
    return StreamingResponse(parts, media_type=kind, headers=_HEADERS)


async def _growing(service: Service, job: str) -> AsyncIterator[bytes]:
    """Yield a film from its start as far as it is, then what comes; its end is that of the job."""
    path = live_path(service.store.result(job))
    with service.broadcaster.listen(job) as news, ExitStack() as stack:
        film = _opened(path, stack)
        ended = (await run_in_threadpool(service.get, job)).has_ended
        while True:
            film = film or _opened(path, stack)
            if film is not None:
                last = ended or _is_gone(film)  # what is written before that is all there is
                while data := await run_in_threadpool(film.read, _BLOCK):
                    yield data
                if last:
                    return
            if ended:
                break
            ended = await anext(news, None) is None
    whole = await run_in_threadpool(service.store.get, job)
    if whole is not None and whole.status == "completed":  # quicker than we could look
        async for part in iterate_in_threadpool(fragments(service.store.result(job))):
            yield part


def _opened(path: Path, stack: ExitStack) -> BinaryIO | None:
    try:
        return stack.enter_context(path.open("rb", buffering=0))
    except FileNotFoundError:
        return None


def _is_gone(film: BinaryIO) -> bool:
    """Tell whether the job has ended, or begun again in another file."""
    return os.fstat(film.fileno()).st_nlink == 0


def _events(service: Service) -> Handler:
    async def events(request: Request) -> Response:
        job = request.path_params["id"]
        await run_in_threadpool(service.get, job)
        return StreamingResponse(
            _told(service, job), media_type="text/event-stream", headers=_HEADERS
        )

    return events


async def _told(service: Service, job: str) -> AsyncIterator[bytes]:
    """Yield events until the job has ended; the first says how it is now."""
    with service.broadcaster.listen(job) as news:
        now = await run_in_threadpool(service.store.get, job)
        if now is None:
            return
        yield _event("status", service.told(now))
        while not now.has_ended:
            try:
                async with asyncio.timeout(_BEAT):
                    item = await anext(news, None)
            except TimeoutError:
                yield b": nothing new\n\n"
                continue
            if item is None:  # the server stops
                return
            if isinstance(item, StatusChanged):
                found = await run_in_threadpool(service.store.get, job)
                if found is None:
                    return
                now = found
                yield _event("status", service.told(now))
            elif (told := _as_event(item)) is not None:
                yield told
                await asyncio.sleep(_BETWEEN)


def _as_event(item: News) -> bytes | None:
    if isinstance(item, Advanced):
        facts = item._asdict()
        return _event("progress", {"progress": facts.pop("percent"), **facts})
    if isinstance(item, FilmGrew):
        return _event("frames", item._asdict())
    if isinstance(item, Previewed):
        strip = png_bytes(np.concatenate(list(item.pictures), axis=1))
        picture = f"data:image/png;base64,{base64.b64encode(strip).decode()}"
        count = len(item.pictures)
        return _event("preview", {"stage": item.stage, "pictures": count, "picture": picture})
    return None


def _event(name: str, told: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(told))
