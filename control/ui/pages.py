"""The dashboard's routes: a page of static files, two feeds of events, and prices of the past.

The files are read once and served from memory by exact name, so no path can lead elsewhere. They
hold no data and need no token; the feeds do (`PUBLIC_PATHS` names what does not). Everything the
page changes it changes through the public API. All its addresses are relative, so it also works
behind a proxy that serves it under a path of its own.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from control.api.schemas import known_venue
from control.http.errors import ApiError, json_response
from control.state.backend import Backend
from control.ui.event_stream import EventStream, Frames
from control.ui.followed import streams_of
from control.ui.knob_ranges import knob_ranges
from control.ui.state import DashboardLimits
from control.ui.status_feed import STREAM_COLUMNS, Hello, StatusFeed
from control.ui.tape import TapeView, tape_frames

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none';"
    # No string ever becomes markup: the browser itself refuses innerHTML and its kin.
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
_PAGE_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
MayCommand = Callable[[Request], bool]

_INDEX: Final = "index.html"
_SYMBOL_MAX: Final = 64


def _read_files() -> Mapping[str, bytes]:
    folder = resources.files("control.ui") / "static"
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.is_file() and _suffix(file.name) in _MEDIA_TYPES
    }


def _suffix(name: str) -> str:
    return f".{name.rpartition('.')[2]}"


FILES: Final = _read_files()
PUBLIC_PATHS: Final = frozenset({"/ui", "/ui/"} | {f"/ui/{name}" for name in FILES})
"""What a browser must get before it can send a token."""


class _Feed(Response):
    """An `EventStream` in the clothes of a Starlette response."""

    def __init__(self, stream: EventStream, feeds: "_Feeds") -> None:
        self.background = None
        self._stream = stream
        self._feeds = feeds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._feeds.viewer_count += 1
        try:
            await self._stream(scope, receive, send)
        finally:
            self._feeds.viewer_count -= 1


class _Feeds:
    """The two feeds, with one count of viewers."""

    def __init__(self, state: Backend, limits: DashboardLimits, may_command: MayCommand) -> None:
        self._state = state
        self._limits = limits
        self._may_command = may_command
        self.viewer_count = 0
        self._status = StatusFeed(state, limits)

    async def events(self, request: Request) -> Response:
        """The engine's status."""
        ranges = knob_ranges(self._state.configured_knobs)
        hello = Hello(STREAM_COLUMNS, ranges, self._may_command(request))
        return self._feed(request, lambda: self._status.frames(hello))

    async def prices(self, request: Request) -> Response:
        """What one symbol has cost in the last day, as far as the database has bars."""
        bars, problem = await self._state.prices.last_day(*self._market(request))
        rows = [[minute * 60_000, *figures, False] for minute, *figures in bars]
        return json_response({"rows": rows, "problem": problem})

    async def tape(self, request: Request) -> Response:
        """Trades and book of one symbol."""
        venue, symbol = self._market(request)
        view = partial(TapeView, self._state, venue, symbol, self._limits)
        return self._feed(request, lambda: tape_frames(view(), self._limits))

    def _market(self, request: Request) -> tuple[str, str]:
        """Venue and symbol that are asked about; only of what is collected anything is said."""
        exchange = request.query_params.get("exchange", "")
        venue = known_venue(exchange) or exchange  # which may be one of another version
        symbol = request.query_params.get("symbol", "")
        for field, value in (("exchange", venue), ("symbol", symbol)):
            if not value or len(value) > _SYMBOL_MAX:
                raise ApiError("invalid_argument", f"{field}: 1 to {_SYMBOL_MAX} characters")
        if not streams_of(self._state, venue, symbol):
            raise ApiError("stream_not_found", "nothing of this symbol is collected")
        return venue, symbol

    def _feed(self, request: Request, frames: Callable[[], Frames]) -> Response:
        if request.method == "HEAD":
            # A feed has no end, and so must not begin for somebody who only wants its head.
            headers = {"cache-control": "no-store"}
            return Response(headers=headers, media_type="text/event-stream")
        if self.viewer_count >= self._limits.viewers_max:
            text = "all seats are taken; close another dashboard"
            raise ApiError("too_many_viewers", text, retry_after_s=5.0)
        return _Feed(EventStream(frames(), self._limits.viewer_buffer_bytes), self)


def routes(
    state: Backend,
    limits: DashboardLimits | None = None,
    may_command: MayCommand = lambda _: True,
) -> list[BaseRoute]:
    """The dashboard's routes, over what the control process knows. `may_command`: whether who
    asks may do more than look.
    """
    feeds = _Feeds(state, limits or DashboardLimits(), may_command)

    async def page(_: Request) -> Response:
        return _file(_INDEX)

    async def page_without_slash(_: Request) -> Response:
        # Relative, so that it is right behind a proxy that adds a path of its own.
        return Response(status_code=307, headers={"location": "../ui"})

    async def file(request: Request) -> Response:
        return _file(request.path_params["name"])

    return [
        Route("/ui", page),
        Route("/ui/", page_without_slash),
        Route("/ui/events", feeds.events),
        Route("/ui/tape", feeds.tape),
        Route("/ui/prices", feeds.prices),
        Route("/ui/{name}", file),
    ]


def _file(name: str) -> Response:
    body = FILES.get(name)
    if body is None:
        raise ApiError("not_found", "the dashboard has no such file")
    headers = _PAGE_HEADERS | {"content-type": _MEDIA_TYPES[_suffix(name)]}
    return Response(body, headers=headers)
