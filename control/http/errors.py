"""What the API answers when it does not do what was asked: one shape, one table of kinds.

Texts name fields and values, never files, statements or traces.
"""

import math
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from engine.process.logs import escaped

STATUS_OF_KIND = {
    "invalid_argument": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "stream_not_found": 404,
    "unknown_symbol": 404,
    "method_not_allowed": 405,
    "stream_exists": 409,
    "upgrading": 409,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "contradiction": 422,
    "not_offered": 422,
    "limit": 429,
    "header_too_large": 431,
    "too_many_requests": 429,
    "unhealthy": 503,
    "unavailable": 503,
}


_RETRY_AFTER_S = {"limit": 60.0}
"""Where the refusal itself does not tell: 1 s for whatever else passes by itself."""


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """Every refusal. `kind` is for programs, `error` for people."""

    error: str
    kind: str
    field: str = ""
    """The part of the request that is wrong: `symbol`, `[2].kind`, `limit`."""
    near: list[str] = []
    """Symbols that may have been meant."""
    offered: list[str] = []
    """What could be asked for instead, as `Kind/Transport`."""
    retry_after_s: float = 0.0


class ApiError(Exception):
    """A refusal on its way to the client."""

    def __init__(
        self,
        kind: str,
        text: str,
        *,
        field: str = "",
        near: list[str] | None = None,
        offered: list[str] | None = None,
        retry_after_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.field = field
        self.near = near or []
        self.offered = offered or []
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """A kind that is not in the table is the engine's own: it cannot do this now."""
        return STATUS_OF_KIND.get(self.kind, 503)

    def body(self) -> ErrorBody:
        """The JSON form."""
        retry_after_s = self.retry_after_s
        if not retry_after_s and self.status in (429, 503):
            retry_after_s = _RETRY_AFTER_S.get(self.kind, 1.0)
        return ErrorBody(
            _printable(str(self)),
            self.kind,
            _printable(self.field),
            self.near,
            self.offered,
            retry_after_s,
        )

    def response(self) -> Response:
        """The answer."""
        body = self.body()
        headers = dict(self.headers)
        if body.retry_after_s:
            headers["Retry-After"] = str(max(1, math.ceil(body.retry_after_s)))
        return json_response(body, self.status, headers)


def json_response(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in JSON."""
    return Response(
        msgspec.json.encode(body), status, headers=headers, media_type="application/json"
    )


async def on_api_error(_: Request, error: Exception) -> Response:
    """Starlette's handler for `ApiError`."""
    assert isinstance(error, ApiError)
    return error.response()


async def on_http_error(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        text = f"this route answers {allowed}, not {request.method}"
        return ApiError("method_not_allowed", text, headers=error.headers).response()
    if error.status_code == 404:
        return ApiError("not_found", "no such route; see /docs").response()
    return ApiError("invalid_argument", "the request is not usable").response()


async def on_fault(_: Request, __: Exception) -> Response:
    """A bug of ours: nothing of the inside shows."""
    body = ErrorBody("an internal fault; the log has the details", "internal")
    return json_response(body, 500)


def _printable(text: str) -> str:
    """What a client sent may hold halves of characters and drive a terminal; an answer may not."""
    return escaped(text.encode("utf-8", "backslashreplace").decode())
