"""The API's routes, one module a noun. Each module lists its operations; `control.api.openapi`
documents exactly those.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from control.api.admission import Admissions
from control.api.schemas import Count, Page, known_venue, unknown_venue
from control.http.auth import Guard
from control.http.errors import ApiError, json_response
from control.state.backend import Backend
from control.state.listings import Listings


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with."""

    backend: Backend
    admissions: Admissions
    instruments: Listings
    guard: Guard
    shows_streams: bool = False
    """Whether there are metrics of single streams."""


ANSWER_WITHIN_S = 5.0
"""A client waits no longer for a venue, which may be blocked for an hour."""
TOTAL = "X-Total-Count"
"""The header with the length of a list of which the answer is a page."""
Handler = Callable[[Request, Services], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, with everything its documentation says."""

    method: str
    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, tuple[Any, ...]]
    """Statuses of answers, a 503 that says no among them, and the types of their bodies; () is
    text."""
    query: type[msgspec.Struct] | None = None
    body: tuple[Any, ...] = ()
    """Types the body can have; () is no body."""
    needs_body: bool = True
    errors: tuple[int, ...] = ()
    """Statuses of refusals beside those that every route has, or every command."""
    media_types: tuple[str, ...] = ("application/json",)
    lists: str = ""
    """What the answer is a page of; `TOTAL` says how many pass the filter."""

    @property
    def name(self) -> str:
        """A unique name."""
        return str(getattr(self.handler, "__name__", self.path))


Found = TypeVar("Found")


def page_of(
    found: Iterable[Found], wanted: Page, row: Callable[[Found], msgspec.Struct]
) -> Response:
    """The wanted part of a list."""
    every = list(found)
    page = every[wanted.offset : wanted.offset + wanted.limit]
    return json_response([row(each) for each in page], headers={TOTAL: str(len(every))})


def count_of(found: Iterable[object]) -> Response:
    """How many there are."""
    return json_response(Count(sum(1 for _ in found)))


async def learn(services: Services, exchanges: Iterable[str | None]) -> None:
    """Know what these exchanges list, as far as they answer while a client waits."""
    found = (known_venue(each) for each in exchanges if each is not None)
    await services.instruments.learn({each for each in found if each}, ANSWER_WITHIN_S)


def venue_of(exchange: str, field_name: str = "exchange") -> str:
    """The venue behind either spelling. Raises ApiError (400)."""
    venue = known_venue(exchange)
    if venue is None:
        raise ApiError(
            "invalid_argument",
            f"{field_name}: unknown exchange {unknown_venue(exchange)}",
            field=field_name,
        )
    return venue


def optional_venue(exchange: str | None) -> str | None:
    """The same for a filter."""
    return None if exchange is None else venue_of(exchange)


def running_venue(services: Services, exchange: str, field_name: str = "exchange") -> str:
    """The same where a stream is named that runs: of a venue that this version does not know, too.
    A registry that another version wrote may hold some.
    """
    if known_venue(exchange) is None and any(
        exchange == key.venue for key in services.backend.streams
    ):
        return exchange
    return venue_of(exchange, field_name)
