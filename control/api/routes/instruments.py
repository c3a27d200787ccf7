"""`/instruments`: what the exchanges list."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from control.api.routes import (
    ANSWER_WITHIN_S,
    Operation,
    Services,
    count_of,
    learn,
    optional_venue,
    page_of,
    venue_of,
)
from control.api.schemas import (
    Count,
    EventsQuery,
    ExchangeChoice,
    Exists,
    ExistsQuery,
    InstrumentEventRow,
    InstrumentFilter,
    InstrumentRow,
    InstrumentsCountQuery,
    InstrumentsQuery,
    RefreshResult,
    row_of,
)
from control.http import requests
from control.http.errors import ApiError, json_response
from control.state.listings import ASKERS_MAX
from engine.base.errors import EngineError
from engine.data.instrument import Instrument


async def list_instruments(request: Request, services: Services) -> Response:
    """Instruments by filter and name, of one exchange or of those that are collected from or were
    asked about; the header says how many there are in all.
    """
    wanted = requests.query(request, InstrumentsQuery)
    await learn(services, [wanted.exchange])
    return page_of(_filtered(services, wanted), wanted, partial(row_of, InstrumentRow))


async def count_instruments(request: Request, services: Services) -> Response:
    """How many instruments pass the filter."""
    wanted = requests.query(request, InstrumentsCountQuery)
    await learn(services, [wanted.exchange])
    return count_of(_filtered(services, wanted))


async def instrument_exists(request: Request, services: Services) -> Response:
    """Whether an exchange lists a symbol, and what may have been meant."""
    wanted = requests.query(request, ExistsQuery)
    venue = venue_of(wanted.exchange)
    await learn(services, [venue])
    exists = services.instruments.get(venue, wanted.symbol) is not None
    near = [] if exists else services.instruments.near(venue, wanted.symbol)
    return json_response(Exists(exists, near))


async def list_instrument_events(request: Request, services: Services) -> Response:
    """Listings, delistings and changes that were noticed, newest first."""
    wanted = requests.query(request, EventsQuery)
    venue = optional_venue(wanted.exchange)
    noticed = services.instruments.events(venue)[: wanted.limit]
    return json_response(
        [row_of(InstrumentEventRow, each.event, at_ns=each.at_ns) for each in noticed]
    )


async def refresh_instruments(request: Request, services: Services) -> Response:
    """Fetch the listings now, of the exchange that the query or the body names, else of all. A
    venue that does not answer is named; what was known stays. When all of them let us wait, the
    answer is 503, and the fetch goes on.
    """
    choices = [requests.query(request, ExchangeChoice)]
    if body := await requests.read_body(request):
        choices.append(requests.checked(requests.parse_json(body), ExchangeChoice))
    chosen = {venue_of(each.exchange) for each in choices if each.exchange is not None}
    venues = sorted(chosen) or list(services.admissions.venues)
    waits_s = [services.instruments.wait_s(venue) for venue in venues]
    if all(wait_s > 0 for wait_s in waits_s):
        raise ApiError(
            "too_many_requests", "the exchange was asked a moment ago",
            retry_after_s=min(waits_s),
        )  # fmt: skip
    due = [venue for venue, wait_s in zip(venues, waits_s, strict=True) if wait_s <= 0]
    with services.instruments.asking() as asker_count:
        if asker_count > ASKERS_MAX:
            raise ApiError(
                "too_many_requests", "others wait for this already", retry_after_s=ANSWER_WITHIN_S
            )
        outcomes = await asyncio.gather(*(_refresh(services, venue) for venue in due))
    if all(outcome.retry_after_s for outcome in outcomes):
        text = "; ".join(outcome.row.error for outcome in outcomes)
        retry_after_s = min(outcome.retry_after_s for outcome in outcomes)
        raise ApiError("unavailable", text, retry_after_s=retry_after_s)
    asked = {outcome.row.exchange: outcome.row for outcome in outcomes}
    return json_response([asked.get(venue) or _just_asked(services, venue) for venue in venues])


def _just_asked(services: Services, venue: str) -> RefreshResult:
    count = sum(1 for _ in services.instruments.of(venue))
    return RefreshResult(venue, count, 0, "it was asked a moment ago")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a refresh. `retry_after_s` above 0: that is not known yet."""

    row: RefreshResult
    retry_after_s: float = 0.0


async def _refresh(services: Services, venue: str) -> _Outcome:
    event_count, failure, retry_after_s = 0, "", 0.0
    blocked_s = _blocked_s(services, venue)
    if blocked_s > ANSWER_WITHIN_S:
        failure = f"{venue} told us not to ask for another {blocked_s:,.0f} s"
        retry_after_s = blocked_s
    else:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                event_count = len(await services.instruments.refresh(venue))
        except TimeoutError:
            failure = f"{venue} is being asked, for more than {ANSWER_WITHIN_S:g} s"
            retry_after_s = max(_blocked_s(services, venue), ANSWER_WITHIN_S)
        except EngineError as error:
            failure = str(error)
    count = sum(1 for _ in services.instruments.of(venue))
    unreadable = len(services.instruments.unreadable(venue))
    return _Outcome(RefreshResult(venue, count, event_count, failure, unreadable), retry_after_s)


def _blocked_s(services: Services, venue: str) -> float:
    """How long the venue's REST must not be asked."""
    status = services.backend.status
    return max(
        (
            each.blocked_s
            for each in (status.limiters if status else [])
            if (each.venue, each.pool) == (venue, "rest_weight")
        ),
        default=0.0,
    )


def _filtered(
    services: Services, wanted: InstrumentsQuery | InstrumentsCountQuery
) -> Iterator[Instrument]:
    venue = optional_venue(wanted.exchange)
    conditions = InstrumentFilter(
        symbol=wanted.symbol, base=wanted.base, quote=wanted.quote, status=wanted.status,
        kind=wanted.kind, venue_kind=wanted.venue_kind, state=wanted.state, settle=wanted.settle,
    )  # fmt: skip
    text = (wanted.q or "").casefold()
    for each in services.instruments.of(venue):
        if conditions.matches(each) and text in each.symbol.casefold():
            yield each


OPERATIONS = [
    Operation(
        "GET", "/instruments", list_instruments, "Instruments by filter",
        {200: (list[InstrumentRow],)}, query=InstrumentsQuery,
        lists="instruments",
    ),
    Operation(
        "GET", "/instruments/count", count_instruments, "How many instruments", {200: (Count,)},
        query=InstrumentsCountQuery,
    ),
    Operation(
        "GET", "/instruments/exists", instrument_exists, "Whether an exchange lists a symbol",
        {200: (Exists,)}, query=ExistsQuery,
    ),
    Operation(
        "GET", "/instruments/events", list_instrument_events,
        "Listings, delistings and changes, newest first", {200: (list[InstrumentEventRow],)},
        query=EventsQuery,
    ),
    Operation(
        "POST", "/instruments/refresh", refresh_instruments, "Fetch the listings now",
        {200: (list[RefreshResult],)}, query=ExchangeChoice, body=(ExchangeChoice,),
        needs_body=False,
    ),
]  # fmt: skip
