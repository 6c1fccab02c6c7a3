"""What a client is told that cannot have what it asks for: a status and one line."""

from lvdm_engines.errors import LvdmError


class RefusedError(LvdmError):
    """A request that is answered with an error; `code` and `param` are for programs."""

    def __init__(
        self,
        message: object,
        status: int = 400,
        code: str = "invalid_value",
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Keep what is answered: an HTTP status, the line, and seconds to wait before a retry."""
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after

    @property
    def kind(self) -> str:
        """The type of error, as clients of such an API know it."""
        return _KINDS.get(self.status, "server_error" if self.status >= 500 else _USUAL)


_USUAL = "invalid_request_error"
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def no_such_video(job: str) -> RefusedError:
    """Return the answer for an id that nobody has."""
    return RefusedError(
        f"got video {job[:60]!r}, which is not here; GET /v1/videos lists those that are",
        404,
        "not_found",
        param="id",
    )
