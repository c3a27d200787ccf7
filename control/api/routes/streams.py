"""`/streams`: what runs, what could run, begin, end, tune."""

from collections.abc import Callable, Iterable
from typing import Literal
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from control.api.admission import may_trade
from control.api.capabilities import offered_by
from control.api.knob_words import in_our_words
from control.api.routes import (
    Operation,
    Services,
    count_of,
    learn,
    page_of,
    running_venue,
    venue_of,
)
from control.api.schemas import (
    BulkItem,
    BulkResult,
    Capability,
    Count,
    CountQuery,
    FilteredStreams,
    KnobsBody,
    KnobsPatch,
    StreamDetail,
    StreamItem,
    StreamList,
    StreamRow,
    StreamsQuery,
    identifier,
    row_of,
    stream_detail,
    stream_row,
)
from control.http import requests
from control.http.errors import ApiError, json_response
from engine.data.instrument import Instrument
from engine.data.names import StreamKey, StreamKind, Transport
from engine.messages.control import KeyResult
from engine.messages.status import StreamReport
from engine.messages.streams import Knobs, StreamRequest

OK = "ok"
"""The seed's whole answer to a command that was accepted."""


async def capabilities(_: Request, services: Services) -> Response:
    """Everything that can be asked for."""
    return json_response(
        [each for venue in services.admissions.venues.values() for each in offered_by(venue)]
    )


async def capabilities_of_exchange(request: Request, services: Services) -> Response:
    """The same for one exchange."""
    venue = venue_of(request.path_params["exchange"])
    return json_response(offered_by(services.admissions.venues[venue]))


async def list_streams(request: Request, services: Services) -> Response:
    """Streams by filter, oldest first; the header says how many there are in all."""
    wanted = requests.query(request, StreamsQuery)
    return page_of(_filtered(services, wanted), wanted, stream_row)


async def count_streams(request: Request, services: Services) -> Response:
    """How many streams pass the filter."""
    return count_of(_filtered(services, requests.query(request, CountQuery)))


async def add_streams(request: Request, services: Services) -> Response:
    """Begin streams. One: 201 or its error. Many: 200 with what became of each."""
    refused = services.admissions.metrics.refused
    try:
        return await _add_streams(request, services, refused)
    except ApiError as error:
        refused(error.kind)
        raise


async def _add_streams(
    request: Request, services: Services, note_refusal: Callable[[str], None]
) -> Response:
    body = _parse_body(await requests.read_body(request))
    services.admissions.check_health(services.backend.health)
    await learn(services, {each.exchange for each in (body if isinstance(body, list) else [body])})
    skipped = 0
    match body:
        case StreamItem() as item:
            wanted = _request_for(services, item)
            (result,) = await services.backend.add([wanted])
            _raise_refusal(result)
            return json_response(OK, 201, {"Location": _location(wanted.key)})
        case FilteredStreams() as filtered:
            accepted, refused, matched, skipped = _requests_by_filter(services, filtered)
        case items:
            accepted, refused = _requests_for(services, items)
            matched = len(items)
    results = await services.backend.add(accepted) if accepted else []
    for result in [*results, *refused]:
        if result.error_kind:
            note_refusal(result.error_kind)
    return json_response(_bulk_result([*results, *refused], matched, skipped))


async def remove_streams(request: Request, services: Services) -> Response:
    """End streams. One: 200 or its error. Many: 200 with what became of each."""
    match _parse_body(await requests.read_body(request)):
        case StreamItem() as item:
            (result,) = await services.backend.remove([_running_key(services, item)])
            _raise_refusal(result)
            return json_response(OK)
        case FilteredStreams() as filtered:
            await learn(services, [filtered.exchange])
            keys = _running_by_filter(services, filtered)
            matched = len(keys)
            keys = keys[: filtered.filter.limit]
        case items:
            keys = [_running_key(services, item, f"[{place}].") for place, item in enumerate(items)]
            matched = len(keys)
    results = await services.backend.remove(keys) if keys else []
    return json_response(_bulk_result(results, matched))


async def get_stream(request: Request, services: Services) -> Response:
    """One stream with its state and the reason for it."""
    return json_response(stream_detail(_find(request, services)))


async def get_knobs(request: Request, services: Services) -> Response:
    """The knobs of a stream."""
    return json_response(KnobsBody(_find(request, services).knobs))


async def patch_knobs(request: Request, services: Services) -> Response:
    """Change some knobs of a stream; the others stay."""
    key = _path_key(request, services)
    body = requests.parse_json(await requests.read_body(request))
    changes = requests.checked(in_our_words(body), KnobsPatch)
    result = await services.backend.set_knobs(key, changes)
    _raise_refusal(result)
    return json_response(OK)


async def take_snapshot(request: Request, services: Services) -> Response:
    """Have a whole book fetched and stored, for those who read it from the middle."""
    if await requests.read_body(request):
        raise ApiError("invalid_argument", "this call takes no body", field="body")
    _find(request, services)
    key = _path_key(request, services)
    venue = services.admissions.venues.get(key.venue)
    if key.kind is not StreamKind.L2_BOOK or venue is None:
        raise ApiError("not_offered", f"{key.kind} has no snapshots, only L2Book has", field="kind")
    if venue.book_snapshot is None:
        raise ApiError("not_offered", f"every update from {key.venue} is a whole book already")
    _raise_refusal(await services.backend.renew_book(key))
    return json_response(OK, 202)


# -- reading requests --------------------------------------------------------------------------


def _parse_body(body: bytes) -> StreamItem | list[StreamItem] | FilteredStreams:
    value = requests.parse_json(body)
    if isinstance(value, list):
        items: list[StreamItem] = requests.checked(value, StreamList)
        return items
    if isinstance(value, dict) and "filter" in value:
        return requests.checked(value, FilteredStreams)
    return requests.checked(value, StreamItem)


def _request_for(
    services: Services, item: StreamItem, field: str = "", *, suggests: bool = True
) -> StreamRequest:
    """A checked wish. Raises ApiError for what no engine could do."""
    venue = venue_of(item.exchange, f"{field}exchange")
    transport = services.admissions.transport(venue, item.kind, item.transport, field)
    instrument = _instrument(services, venue, item.symbol, field, suggests=suggests)
    services.admissions.check_kind(instrument, item.kind, field)
    key = StreamKey(venue, item.symbol, item.kind, transport)
    return StreamRequest(key, _knobs(services, item.knobs, field))


def _requests_for(
    services: Services, items: list[StreamItem]
) -> tuple[list[StreamRequest], list[KeyResult]]:
    """The possible ones, and a result for each of the others. A stream named twice exists the
    second time.
    """
    accepted: dict[StreamKey, StreamRequest] = {}
    refused = []
    for place, item in enumerate(items):
        try:
            wanted = _request_for(
                services, item, f"[{place}].", suggests=len(items) <= _SUGGESTED_FOR_MAX
            )
        except ApiError as error:
            if error.kind in ("invalid_argument", "contradiction"):
                raise  # the request itself is wrong: nothing of it is done
            key = StreamKey(
                venue_of(item.exchange), item.symbol, item.kind, item.transport or Transport.WS
            )
            refused.append(KeyResult(key, error.kind, str(error)))
            continue
        if wanted.key in accepted:
            text = f"{identifier(wanted.key)} is named twice"
            refused.append(KeyResult(wanted.key, "stream_exists", text))
            continue
        accepted[wanted.key] = wanted
    return list(accepted.values()), refused


def _requests_by_filter(
    services: Services, filtered: FilteredStreams
) -> tuple[list[StreamRequest], list[KeyResult], int, int]:
    """The possible ones of the instruments that the filter lets through, a result for each of the
    others, how many it let through, and how many more it did not for they cannot have the kind.
    """
    venue = venue_of(filtered.exchange)
    transport = services.admissions.transport(venue, filtered.kind, filtered.transport)
    _check_loaded(services, venue)
    knobs = _knobs(services, filtered.knobs)
    meant = [
        each
        for each in services.instruments.of(venue)
        if filtered.filter.matches(each) and (filtered.filter.names_a_state or may_trade(each))
    ]
    matching = [each for each in meant if not each.lacks(filtered.kind)]
    accepted, refused = [], []
    for each in matching[: filtered.filter.limit]:
        key = StreamKey(venue, each.symbol, filtered.kind, transport)
        try:
            services.admissions.check_instrument(each, may_wait=True)
            accepted.append(StreamRequest(key, knobs))
        except ApiError as error:
            refused.append(KeyResult(key, error.kind, str(error)))
    return accepted, refused, len(matching), len(meant) - len(matching)


def _running_by_filter(services: Services, filtered: FilteredStreams) -> list[StreamKey]:
    """Running streams of the kind whose instrument the filter lets through. What the venue does
    not list has no facts: it can only be named by its symbol.
    """
    venue, wanted = running_venue(services, filtered.exchange), filtered.filter
    if wanted.asks_for_facts:
        _check_loaded(services, venue)
    keys = []
    for key in services.backend.streams:
        if key.venue != venue or key.kind is not filtered.kind:
            continue
        if filtered.transport not in (None, key.transport):
            continue
        instrument = services.instruments.get(venue, key.symbol)
        if instrument is not None:
            is_meant = wanted.matches(instrument)
        else:
            is_meant = wanted.names(key.symbol) and not wanted.asks_for_facts
        if is_meant:
            keys.append(key)
    return sorted(keys)


def _running_key(services: Services, item: StreamItem, field: str = "") -> StreamKey:
    """Which stream is meant: without a transport the running one, else the first on offer."""
    venue = running_venue(services, item.exchange, f"{field}exchange")
    ways = [item.transport] if item.transport else list(Transport)
    keys = [StreamKey(venue, item.symbol, item.kind, way) for way in ways]
    return next((key for key in keys if key in services.backend.streams), keys[0])


def _path_key(request: Request, services: Services) -> StreamKey:
    """The stream that the path names."""
    item = requests.checked(request.path_params, StreamItem)
    assert item.transport is not None
    venue = running_venue(services, item.exchange)
    return StreamKey(venue, item.symbol, item.kind, item.transport)


def _find(request: Request, services: Services) -> StreamReport:
    key = _path_key(request, services)
    report = services.backend.streams.get(key)
    if report is None:
        raise ApiError("stream_not_found", f"{identifier(key)} is not running")
    return report


def _filtered(services: Services, wanted: StreamsQuery | CountQuery) -> Iterable[StreamReport]:
    venue = None if wanted.exchange is None else running_venue(services, wanted.exchange)
    for key, report in services.backend.streams.items():
        if (
            venue in (None, key.venue)
            and wanted.symbol in (None, key.symbol)
            and wanted.kind in (None, key.kind)
            and wanted.transport in (None, key.transport)
            and wanted.state in (None, report.state)
        ):
            yield report


def _check_loaded(services: Services, venue: str) -> None:
    if not services.instruments.is_loaded(venue):
        why = services.instruments.errors.get(venue, "they are being fetched")
        raise ApiError(
            "unavailable", f"the instruments of {venue} are not known yet: {why}", retry_after_s=2.0
        )


def _instrument(
    services: Services, venue: str, symbol: str, field: str, *, suggests: bool
) -> Instrument:
    """What is listed under a name, if rows of it may come now; raises ApiError."""
    _check_loaded(services, venue)
    instrument = services.instruments.get(venue, symbol)
    if instrument is not None:
        services.admissions.check_instrument(instrument, field)
        return instrument
    if why := services.instruments.unreadable(venue).get(symbol):
        text = f"{venue} lists {symbol!a}, but its row cannot be read: {why}"
        raise ApiError("unknown_symbol", text, field=f"{field}symbol")
    near = services.instruments.near(venue, symbol) if suggests else []
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ApiError(
        "unknown_symbol", f"{venue} lists no {symbol!a}{hint}", field=f"{field}symbol", near=near
    )


def _knobs(services: Services, changes: KnobsPatch | None, field: str = "") -> Knobs:
    """Knobs of a new stream."""
    knobs = Knobs() if changes is None else changes.over(Knobs())
    services.admissions.check_knobs(knobs, f"{field}knobs.")
    return knobs


# -- answers -----------------------------------------------------------------------------------


def _raise_refusal(result: KeyResult) -> None:
    if result.error_kind:
        text = result.error or identifier(result.key)
        raise ApiError(result.error_kind, text, field=result.field)


def _bulk_result(results: list[KeyResult], matched: int, skipped: int = 0) -> BulkResult:
    items = [
        row_of(
            BulkItem, result.key, ok=not result.error_kind, error=result.error,
            error_kind=result.error_kind,
        )
        for result in results
    ]  # fmt: skip
    accepted = sum(item.ok for item in items)
    return BulkResult(accepted, len(items) - accepted, matched, skipped, items)


def _location(key: StreamKey) -> str:
    symbol = quote(key.symbol, safe=":@")
    return f"/streams/{key.venue}/{symbol}/{key.kind}/{key.transport}"


_STREAM = "/streams/{exchange}/{symbol:path}/{kind}/{transport}"
_SUGGESTED_FOR_MAX = 20
"""Longer lists get no near names: each costs milliseconds, in which nobody else is served."""
_BODY = (StreamItem, StreamList, FilteredStreams)
_Ok = Literal["ok"]
OPERATIONS = [
    Operation(
        "GET", "/streams", list_streams, "Streams by filter", {200: (list[StreamRow],)},
        query=StreamsQuery,
        lists="streams",
    ),
    Operation(
        "POST", "/streams", add_streams,
        "Begin a stream (201), or many: a list, or one on every instrument of a filter (200)",
        {201: (_Ok,), 200: (BulkResult,)}, body=_BODY,
        errors=(404, 409, 422),
    ),
    Operation(
        "DELETE", "/streams", remove_streams,
        "End a stream, or many: a list, or those of a filter",
        {200: (_Ok, BulkResult)}, body=_BODY, errors=(404,),
    ),
    Operation(
        "GET", "/streams/count", count_streams, "How many streams", {200: (Count,)},
        query=CountQuery,
    ),
    Operation(
        "GET", "/streams/capabilities", capabilities, "What can be asked for",
        {200: (list[Capability],)},
    ),
    Operation(
        "GET", "/streams/capabilities/{exchange}", capabilities_of_exchange,
        "What can be asked for at one exchange", {200: (list[Capability],)},
    ),
    Operation(
        "GET", f"{_STREAM}/knobs", get_knobs, "The knobs of a stream", {200: (KnobsBody,)},
        errors=(404,),
    ),
    Operation(
        "PATCH", f"{_STREAM}/knobs", patch_knobs, "Change knobs of a stream", {200: (_Ok,)},
        body=(KnobsPatch,), errors=(404, 422),
    ),
    Operation(
        "POST", f"{_STREAM}/snapshot", take_snapshot,
        "Fetch a whole book and store it: it follows in a moment, the stream goes on meanwhile",
        {202: (_Ok,)}, errors=(404, 422),
    ),
    Operation(
        "GET", _STREAM, get_stream, "One stream", {200: (StreamDetail,)}, errors=(404,)
    ),
]  # fmt: skip
