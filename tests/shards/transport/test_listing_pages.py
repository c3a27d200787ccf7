"""Listings that come in pages: all of them are asked for, and a venue that never ends is left."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from aiohttp import web

from engine.base.errors import VenueError
from engine.data.instrument import Instrument
from shards.transport.rest import VenueRest
from shards.venues import VENUES
from shards.venues.kit import ListingCalls, RestCall, Venue
from shards.venues.listing import Readings
from tests.shards.doubles import free_leases


class Page(msgspec.Struct):
    """One answer of the fake venue."""

    symbols: list[str]
    cursor: str = ""


class Row(msgspec.Struct):
    symbol: str


def call(cursor: str) -> RestCall:
    return RestCall("GET", f"/symbols?limit=2&cursor={cursor}", weight=1)


def read_page(body: bytes) -> Readings[Instrument]:
    page = msgspec.json.decode(body, type=Page)
    readable = {name: Instrument("toy", name, 1, 1) for name in page.symbols if name != "ODD"}
    return Readings(readable, {"ODD": "price: missing"} if "ODD" in page.symbols else {})


def next_page(body: bytes) -> RestCall | None:
    cursor = msgspec.json.decode(body, type=Page).cursor
    return call(cursor) if cursor else None


LISTING = ListingCalls(call(""), read_page, next_page)
VENUE = dataclasses.replace(VENUES["binance_linear"], listing=LISTING, parse_limits=None)


class Asked:
    """What a fake venue was asked for, and its answers by cursor."""

    def __init__(self, answer: Callable[[str], Page | bytes]) -> None:
        self._answer = answer
        self.cursors: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        cursor = request.query["cursor"]
        self.cursors.append(cursor)
        answer = self._answer(cursor)
        body = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        return web.Response(body=body, content_type="application/json")


def listed(asked: Asked, venue: Venue = VENUE) -> Readings[Instrument]:
    """What a client makes of the fake venue's answers."""

    async def scenario(rest: VenueRest) -> Readings[Instrument]:
        return LISTING.read(await rest.listing())

    return asyncio.run(_with_venue(asked, venue, scenario))


async def _with_venue(
    asked: Asked, venue: Venue, scenario: Callable[[VenueRest], Awaitable[Readings[Instrument]]]
) -> Readings[Instrument]:
    app = web.Application()
    app.router.add_get("/symbols", asked.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    rest = VenueRest(venue, f"http://{host}:{port}", free_leases())
    try:
        return await scenario(rest)
    finally:
        await rest.close()
        await runner.cleanup()


def test_every_page_is_asked_for_once() -> None:
    pages = {"": Page(["A", "ODD"], "two"), "two": Page(["C"], "three"), "three": Page(["D"])}
    asked = Asked(lambda cursor: pages[cursor])
    found = listed(asked)
    assert asked.cursors == ["", "two", "three"]
    assert list(found.known) == ["A", "C", "D"]
    assert found.unreadable == {"ODD": "price: missing"}


def test_each_type_of_instruments_is_asked_for_with_its_pages() -> None:
    pages = {"": Page(["A"], "two"), "two": Page(["B"]), "swap": Page(["C"], "more"),
             "more": Page(["D"]), "future": Page([])}  # fmt: skip
    asked = Asked(pages.__getitem__)
    calls = dataclasses.replace(LISTING, others=(call("swap"), call("future")))
    found = listed(asked, dataclasses.replace(VENUE, listing=calls))
    assert asked.cursors == ["", "two", "swap", "more", "future"]
    assert list(found.known) == ["A", "B", "C", "D"]


def test_a_page_that_comes_again_is_the_last() -> None:
    asked = Asked(lambda cursor: Page(["A"], "two") if cursor else Page(["A", "B"], "two"))
    assert list(listed(asked).known) == ["A", "B"]
    assert asked.cursors == ["", "two"], "it names itself as the next one"
    asked = Asked({"": Page(["A"], "two"), "two": Page(["B"], ""), "x": Page([])}.__getitem__)
    assert list(listed(asked).known) == ["A", "B"]


@pytest.mark.parametrize("count", [100, 101])
def test_no_listing_has_more_than_a_hundred_pages(count: int) -> None:
    def answer(cursor: str) -> Page:
        number = int(cursor or 1)
        return Page([f"S{number}"], str(number + 1) if number < count else "")

    asked = Asked(answer)
    if count > 100:
        with pytest.raises(VenueError, match="its listing has more than 100 pages"):
            listed(asked)
    else:
        assert len(listed(asked).known) == 100
    assert Counter(asked.cursors).most_common(1)[0][1] == 1
    assert len(asked.cursors) == 100


def test_a_listing_of_which_a_page_is_missing_is_no_listing() -> None:
    asked = Asked(lambda cursor: b'{"cursor":[]}' if cursor else Page(["A"], "two"))
    with pytest.raises(VenueError, match="page 2 of its listing does not say what is next"):
        listed(asked)


def test_a_symbol_that_one_page_says_well_is_read() -> None:
    odd = Readings[Instrument]({}, {"A": "price: missing"}, nameless=1)
    good = Readings({"A": Instrument("toy", "A", 1, 1)}, {"B": "no"}, nameless=2)
    calls = ListingCalls(call(""), {b"odd": odd, b"good": good}.__getitem__)
    for pages in ([b"odd", b"good"], [b"good", b"odd"]):
        found = calls.read(pages)
        assert (list(found.known), dict(found.unreadable), found.nameless) == (
            ["A"],
            {"B": "no"},
            3,
        )
