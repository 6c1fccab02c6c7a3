"""Answers as this API gives them: JSON, errors as {"error": {message, type, code, param}}."""

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from lvdm_rt.serve.refusals import RefusedError


def answer(told: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return what is told as JSON."""
    content = msgspec.json.encode(told)
    return Response(content, status, headers, media_type="application/json")


def error_answer(err: RefusedError) -> Response:
    """Return an error as clients of such an API read it."""
    headers = {}
    if err.retry_after is not None:
        headers["Retry-After"] = str(err.retry_after)
    if err.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    told = {"message": str(err), "type": err.kind, "code": err.code, "param": err.param}
    return answer({"error": told}, err.status, headers)
