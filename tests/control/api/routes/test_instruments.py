"""What the venues list: fetched, compared, kept, searched."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control.api import routes
from control.api.routes import instruments as route
from control.state import listings as module
from control.state.listings import Listings, differences
from engine.base.errors import VenueError
from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.messages.listings import InstrumentEvent, ListingLoaded
from shards.venues import VENUES
from tests.control.api.api_rig import Rig, instrument, run_with_rig

HL = "hyperliquid_perp"


def meta(*names: str, decimals: int = 3) -> bytes:
    coins = ",".join(f'{{"name":"{name}","szDecimals":{decimals}}}' for name in names)
    return f'{{"universe":[{coins}]}}'.encode()


class Venue:
    """Answers with what the test says; counts the questions."""

    def __init__(self, body: bytes | Exception) -> None:
        self.body = body
        self.asked = 0

    async def fetch(self, _: Any) -> list[bytes]:
        self.asked += 1
        if isinstance(self.body, Exception):
            raise self.body
        return [self.body]


Told = list[ListingLoaded]


def make(
    venue: Venue,
    directory: Path | None = None,
    refresh_s: float = 900,
    on_told: Callable[[ListingLoaded], None] = lambda _: None,
) -> Any:
    told: Told = []
    only = {HL: VENUES[HL]}

    def tell(message: ListingLoaded) -> None:
        told.append(message)
        on_told(message)

    service = Listings(only, directory, venue.fetch, tell, refresh_s)
    service.load_files()
    service.follow([HL])
    return service, told


def test_differences_name_what_changed() -> None:
    before = {each.symbol: each for each in (instrument(HL, "A"), instrument(HL, "B"))}
    now = {"B": instrument(HL, "B", status="DELISTED"), "C": instrument(HL, "C")}
    assert differences(HL, before, now, 0) == [
        InstrumentEvent(HL, "A", "delisted"),
        InstrumentEvent(HL, "B", "changed", "status: TRADING -> DELISTED"),
        InstrumentEvent(HL, "C", "listed"),
    ]


def test_a_state_that_changes_and_a_date_that_moves_are_said_in_words() -> None:
    future = instrument(HL, "F", kind=InstrumentKind.FUTURE, delivery_ns=1_800_000_000 * 10**9)
    later = msgspec.structs.replace(
        future, status="BREAK", state=InstrumentState.HALTED, delivery_ns=1_800_086_400 * 10**9,
        listed_ns=10**18,
    )  # fmt: skip
    (event,) = differences(HL, {"F": future}, {"F": later}, 0)
    assert (event.event, event.detail) == (
        "changed",
        "status: TRADING -> BREAK; state: trading -> halted; listed: none -> 2001-09-09 01:46Z;"
        " delivery: 2027-01-15 08:00Z -> 2027-01-16 08:00Z",
    )
    at_delivery, before_it = future.delivery_ns, future.delivery_ns - 1
    assert differences(HL, {"F": future}, {}, before_it) == [InstrumentEvent(HL, "F", "delisted")]
    (event,) = differences(HL, {"F": future}, {}, at_delivery)
    assert (event.event, event.detail) == ("delisted", "expired: delivery 2027-01-15 08:00Z")


def test_that_a_release_knows_more_is_no_change() -> None:
    """A file of before says nothing of the market; else there was an event of every instrument."""
    now = instrument(HL, "A", listed_ns=10**18)
    old = Instrument(HL, "A", 2, 3, now.base, now.quote, "0.01", "0.001", status="TRADING")
    assert differences(HL, {"A": old}, {"A": now}, 0) == []
    coarser = msgspec.structs.replace(old, tick_size="0.1")
    assert differences(HL, {"A": coarser}, {"A": now}, 0) == [
        InstrumentEvent(HL, "A", "changed", "tick_size: 0.1 -> 0.01")
    ]


def test_the_first_listing_is_no_event_and_later_changes_are(tmp_path: Path) -> None:
    async def scenario() -> None:
        venue = Venue(meta("BTC", "ETH"))
        service, told = make(venue, tmp_path)
        assert not service.is_loaded(HL)
        await service.refresh(HL)
        assert (len(told[0].instruments), told[0].events) == (2, [])
        venue.body = meta("BTC", "SOL")
        events = await service.refresh(HL)
        assert [(event.symbol, event.event) for event in events] == [
            ("ETH", "delisted"), ("SOL", "listed"),
        ]  # fmt: skip
        assert told[1].events == events == [timed.event for timed in reversed(service.events())]

    asyncio.run(scenario())


@pytest.mark.fault("N04")
def test_a_row_that_cannot_be_read_is_no_delisting_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    odd = b'{"universe":[{"name":"BTC","szDecimals":3},{"name":"ETH","szDecimals":null}]}'

    async def scenario() -> None:
        venue = Venue(meta("BTC", "ETH"))
        service, told = make(venue, tmp_path)
        await service.refresh(HL)
        venue.body = odd
        (event,) = await service.refresh(HL)
        assert (event.symbol, event.event) == ("ETH", "unreadable")
        assert event.detail.startswith("szDecimals: Expected `int`, got `null`")
        assert service.get(HL, "ETH").qty_decimals == 3, "what was known of it stays"
        assert [each.symbol for each in told[-1].instruments] == ["BTC", "ETH"]
        assert await service.refresh(HL) == []
        service, _ = make(venue, tmp_path)
        assert await service.refresh(HL) == [], "nor again after a restart"
        assert service.unreadable(HL) == {"ETH": event.detail}
        venue.body = meta("BTC", "ETH")
        assert await service.refresh(HL) == [InstrumentEvent(HL, "ETH", "readable")]
        venue.body = odd
        await service.refresh(HL)
        venue.body = meta("BTC")
        assert await service.refresh(HL) == [InstrumentEvent(HL, "ETH", "delisted")]

    asyncio.run(scenario())
    assert caplog.text.count("ETH unreadable") == 2, "each time it is new"


def test_events_are_kept_across_restarts_the_newest_of_each_venue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_EVENTS_KEPT", 30)
    caplog.set_level("INFO")

    async def scenario() -> None:
        venue = Venue(meta("BTC"))
        service, _ = make(venue, tmp_path)
        await service.refresh(HL)
        service, _ = make(venue, tmp_path)
        assert service.events() == []
        venue.body = meta("BTC", *(f"N{number}" for number in range(28)))
        await service.refresh(HL)
        venue.body = meta("BTC", "ETH", decimals=4)
        await service.refresh(HL)
        noticed = service.events()
        assert [timed.event.event for timed in noticed] == ["delisted"] * 28 + ["listed", "changed"]
        restarted, _ = make(venue, tmp_path)
        assert restarted.events() == restarted.events(HL) == noticed
        venue.body = meta("BTC", decimals=4)
        await restarted.refresh(HL)
        (newest, *older) = restarted.events()
        assert (newest.event.symbol, newest.event.event) == ("ETH", "delisted")
        assert older == noticed[:29]

    asyncio.run(scenario())
    assert f"{HL}: and 8 more" in caplog.text


def test_what_was_known_survives_a_restart_with_the_venue_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        service, _ = make(Venue(meta("BTC", "kPEPE")), tmp_path)
        await service.refresh(HL)
        away = Venue(VenueError("connection refused"))
        service, told = make(away, tmp_path)
        assert service.get(HL, "kPEPE") is not None
        with pytest.raises(VenueError):
            await service.refresh(HL)
        assert service.get(HL, "kPEPE") is not None
        assert service.errors == {HL: "connection refused"}
        assert told == []
        away.body = meta("BTC")
        assert [event.event for event in await service.refresh(HL)] == ["delisted"]
        assert service.errors == {}

    asyncio.run(scenario())


LISTING = b'{"venue":"hyperliquid_perp","fetched_ns":1,"instruments":[%b]}'
STRANGE = b'{"venue":"hyperliquid_perp","symbol":"A B","price_decimals":1,"qty_decimals":1}'


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b'{"venue": 1}', LISTING % b"", LISTING % STRANGE]
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / f"{HL}.json").write_bytes(text)

    async def scenario() -> None:
        service, _ = make(Venue(meta("BTC")), tmp_path)
        assert not service.is_loaded(HL)
        await service.refresh(HL)
        assert service.is_loaded(HL)

    asyncio.run(scenario())


def test_a_venue_is_asked_on_a_timer_and_again_after_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_RETRY_MAX_S", 0.01)

    async def scenario() -> None:
        venue = Venue(VenueError("away"))
        service, told = make(venue, refresh_s=0.01)
        running = asyncio.create_task(service.run())
        async with asyncio.timeout(30):
            while venue.asked < 3:
                await asyncio.sleep(0.005)
            venue.body = b"nonsense"
            asked = venue.asked
            while venue.asked < asked + 3:
                await asyncio.sleep(0.005)
            venue.body = meta("BTC")
            while len(told) < 3:
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert service.get(HL, "BTC") is not None

    asyncio.run(scenario())


def test_a_listing_that_streams_wait_for_is_fetched_before_it_is_due() -> None:
    """Also where they say so the moment it has come without what they wait for."""

    async def scenario() -> None:
        venue = Venue(meta("BTC"))
        service, told = make(venue, on_told=lambda _: service.want(HL))
        running = asyncio.create_task(service.run())
        async with asyncio.timeout(30):
            while len(told) < 3:
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_only_venues_that_somebody_wants_to_know_of_are_asked() -> None:
    asked: list[str] = []

    async def fetch(venue: Any) -> list[bytes]:
        asked.append(venue.name)
        raise VenueError("away")

    async def scenario() -> None:
        service = Listings(VENUES, None, fetch, print)
        running = asyncio.create_task(service.run())
        service.follow(["okx", "of_another_version"])
        async with asyncio.timeout(30):
            while not asked:
                await asyncio.sleep(0.005)
            await service.learn([HL], within_s=30)
            await service.learn([HL, "of_another_version"], within_s=30)
        assert asked == ["okx", HL], "and a moment later nobody is asked again"
        assert (service.missing()[HL], service.missing()["okx"]) == ("away", "away")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_who_asks_about_a_venue_that_nobody_collects_from_has_its_listing() -> None:
    async def scenario(rig: Rig) -> None:
        venue = Venue(meta("BTC", "LATER"))
        rig.instruments = Listings(VENUES, None, venue.fetch, rig.backend.tell_listing)
        rig.serve(replace(rig.services, instruments=rig.instruments))
        answer = await rig.ask("GET", "/instruments?exchange=HyperliquidPerp")
        assert [each["symbol"] for each in answer.body] == ["BTC", "LATER"]
        answer = await rig.ask("GET", "/instruments/count?exchange=HyperliquidPerp")
        assert answer.body == {"count": 2}
        assert venue.asked == 1
        answer = await rig.ask("GET", "/instruments")
        assert len(answer.body) == 2, "of all that are known"

    run_with_rig(scenario)


def test_a_stream_of_a_venue_that_was_not_asked_yet_can_be_added() -> None:
    async def scenario(rig: Rig) -> None:
        venue = Venue(meta("BTC"))
        rig.instruments = Listings(VENUES, None, venue.fetch, rig.backend.tell_listing)
        rig.serve(replace(rig.services, instruments=rig.instruments))
        body = {"exchange": "HyperliquidPerp", "symbol": "BTC", "kind": "Trades"}
        answer = await rig.ask("POST", "/streams", body)
        assert answer.status == 201, answer.text

    run_with_rig(scenario)


@pytest.mark.fault("H02")
def test_a_venue_that_does_not_answer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "ANSWER_WITHIN_S", 0.01)

    async def never(_: Any) -> list[bytes]:
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario(rig: Rig) -> None:
        rig.instruments = Listings(VENUES, None, never, rig.backend.tell_listing)
        rig.serve(replace(rig.services, instruments=rig.instruments))
        answer = await rig.ask("GET", "/instruments?exchange=HyperliquidPerp")
        assert (answer.status, answer.body) == (200, [])

    run_with_rig(scenario)


@pytest.mark.fault("H02")
def test_it_says_why_a_listing_has_not_come_in_this_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        venue = Venue(VenueError("away"))
        waits = [""]
        service = Listings({HL: VENUES[HL]}, tmp_path, venue.fetch, print, 900, lambda _: waits[0])
        assert service.missing() == {HL: "nobody has asked yet"}
        service.follow([HL])
        assert service.missing() == {HL: "the venue was asked"}
        with pytest.raises(VenueError):
            await service.refresh(HL)
        assert service.missing() == {HL: "away"}
        waits[0] = "waiting for the budget rest_weight, blocked 9 s"
        assert service.missing() == {HL: waits[0]}
        venue.body = meta("BTC")
        await service.refresh(HL)
        assert service.missing() == {HL: ""}
        service, _ = make(venue, tmp_path)
        assert service.missing() == {HL: "the venue was asked"}, "a copy on disk is no listing"

    asyncio.run(scenario())


def test_an_empty_listing_is_not_believed(tmp_path: Path) -> None:
    async def scenario() -> None:
        venue = Venue(meta())
        service, told = make(venue, tmp_path)
        with pytest.raises(VenueError, match="lists nothing"):
            await service.refresh(HL)
        assert not service.is_loaded(HL)
        venue.body = meta("BTC", "ETH")
        await service.refresh(HL)
        venue.body = meta()
        with pytest.raises(VenueError, match="lists nothing"):
            await service.refresh(HL)
        assert service.get(HL, "ETH") is not None
        assert service.errors[HL] == "hyperliquid_perp lists nothing"
        assert (len(told), service.events()) == (1, [])
        restarted, _ = make(venue, tmp_path)
        assert restarted.get(HL, "ETH") is not None

    asyncio.run(scenario())


@pytest.mark.fault("A07")
def test_what_is_no_symbol_is_not_listed(caplog: pytest.LogCaptureFixture) -> None:
    """Listed, it could be collected by a filter and then not be named by anybody."""
    caplog.set_level("INFO")

    async def scenario() -> None:
        service, told = make(Venue(meta("BTC", "币安人生", "B\u202eTC", "A B", "A" * 33)))
        await service.refresh(HL)
        assert [each.symbol for each in service.of(HL)] == ["BTC", "币安人生"]
        assert [each.symbol for each in told[0].instruments] == ["BTC", "币安人生"]

    asyncio.run(scenario())
    assert "'B\\u202eTC' unreadable no name of an instrument" in caplog.text


DEEP = b'{"universe":[],"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.fault("M11")
@pytest.mark.parametrize(
    "body", [DEEP, b'{"universe":[{"name":"\\ud800"}]}', b"[]", b"<html>", b""]
)
def test_an_answer_nobody_can_use_is_the_venues_trouble_alone(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_MAX_S", 0.01)

    async def scenario() -> None:
        venue = Venue(body)
        service, told = make(venue)
        with pytest.raises(VenueError, match="a listing nobody can use"):
            await service.refresh(HL)
        running = asyncio.create_task(service.run())
        async with asyncio.timeout(30):
            while venue.asked < 3:
                await asyncio.sleep(0.005)
            assert not running.done(), "the timer lives on"
            venue.body = meta("BTC")
            while not told:
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_search_filters_pages_and_counts() -> None:
    async def scenario(rig: Rig) -> None:
        for query, symbols in (
            ("q=pepe", ["kPEPE"]), ("exchange=BinanceLinear&base=btc", ["BTCUSDC", "BTCUSDT"]),
            ("quote=USDT&limit=2&offset=1", ["ETHUSDT", "SOLUSDT"]), ("status=DELISTED", []),
            ("q=%2F", ["PURR/USDC"]), ("symbol=%2AUSD%5BC%5D", ["BTCUSDC", "PURR/USDC"]),
        ):  # fmt: skip
            answer = await rig.ask("GET", f"/instruments?{query}")
            assert [row["symbol"] for row in answer.body] == symbols, query
        answer = await rig.ask("GET", "/instruments?limit=1")
        assert answer.headers["x-total-count"] == "10"
        assert (await rig.ask("GET", "/instruments/count")).body == {"count": 10}
        assert (await rig.ask("GET", "/instruments/count?quote=USDT")).body == {"count": 3}
        for query in ("name=BTC", "exchange=Nasdaq", "limit=-1", "q="):
            assert (await rig.ask("GET", f"/instruments?{query}")).status == 400, query

    run_with_rig(scenario)


def test_what_is_traded_is_searched_by_our_words_and_by_the_venues() -> None:
    async def scenario(rig: Rig) -> None:
        listing = rig.instruments._listings["binance_linear"]
        facts: dict[str, Any] = {
            "kind": InstrumentKind.FUTURE, "venue_kind": "CURRENT_QUARTER", "settle": "BTC",
            "state": InstrumentState.HALTED, "status": "BREAK", "contract_size": "100",
            "contract_unit": SizeUnit.QUOTE, "listed_ns": 10**18, "delivery_ns": 2 * 10**18,
        }  # fmt: skip
        listing["BTCUSDT"] = instrument("binance_linear", "BTCUSDT", **facts)
        odd = {"kind": InstrumentKind.UNKNOWN, "venue_kind": "EVENT"}
        listing["ETHUSDT"] = instrument("binance_linear", "ETHUSDT", **odd)
        for query, count in (
            ("kind=future", 1), ("kind=perpetual", 8), ("kind=", 1), ("state=halted", 1),
            ("settle=btc", 1), ("venue_kind=current_quarter", 1), ("venue_kind=event", 1),
            ("kind=future&state=trading", 0), ("status=break&settle=BTC", 1), ("kind=spot", 0),
        ):  # fmt: skip
            rows = (await rig.ask("GET", f"/instruments?{query}")).body
            answer = await rig.ask("GET", f"/instruments/count?{query}")
            assert (len(rows), answer.body) == (count, {"count": count}), query
        (row,) = (await rig.ask("GET", "/instruments?kind=future")).body
        assert {name: row[name] for name in facts} == facts
        for query, field in (("kind=futures", "kind"), ("state=TRADING", "state")):
            answer = await rig.ask("GET", f"/instruments?{query}")
            assert (answer.status, answer.body["field"]) == (400, field)

    run_with_rig(scenario)


def test_exists_answers_and_suggests() -> None:
    async def scenario(rig: Rig) -> None:
        path = "/instruments/exists?exchange=HyperliquidPerp&symbol="
        assert (await rig.ask("GET", f"{path}kPEPE")).body == {"exists": True}
        assert (await rig.ask("GET", f"{path}PEPE")).body == {"exists": False, "near": ["kPEPE"]}
        answer = await rig.ask("GET", "/instruments/exists?exchange=HyperliquidPerp")
        assert (answer.status, answer.body["field"]) == (400, "symbol")

    run_with_rig(scenario)


def test_refresh_reports_each_venue_and_is_limited() -> None:
    async def scenario(rig: Rig) -> None:
        async def fetch(venue: Any) -> list[bytes]:
            if venue.name == HL:
                return [meta("BTC", "NEW")]
            raise VenueError("binance_linear: HTTP 503")

        rig.instruments._fetch = fetch
        answer = await rig.ask("POST", "/instruments/refresh")
        rows = {row["exchange"]: row for row in answer.body}
        assert rows["binance_linear"]["error"] == "binance_linear: HTTP 503"
        assert rows["binance_linear"]["instrument_count"] == 4, "what was known stays"
        assert (rows[HL]["instrument_count"], rows[HL]["event_count"]) == (2, 7)
        assert [each.venue for each in rig.supervisor.stored_instruments] == [HL]
        again = await rig.ask("POST", "/instruments/refresh?exchange=HyperliquidPerp")
        assert (again.status, again.body["kind"]) == (429, "too_many_requests")
        events = (await rig.ask("GET", "/instruments/events?limit=2")).body
        assert len(events) == 2
        assert (await rig.ask("GET", "/instruments/events?exchange=BinanceLinear")).body == []

    run_with_rig(scenario)


@pytest.mark.parametrize(
    ("query", "body", "asked"),
    [
        ("", {"exchange": "HyperliquidPerp"}, [HL]),
        ("?exchange=HyperliquidPerp", {"exchange": "hyperliquid_perp"}, [HL]),
        ("?exchange=HyperliquidPerp", {"exchange": "BinanceLinear"}, ["binance_linear", HL]),
        ("", {}, list(VENUES)),
        ("", {"exchange": None}, list(VENUES)),
    ],
)
def test_a_refresh_is_of_the_exchange_that_is_named(
    query: str, body: dict[str, Any], asked: list[str]
) -> None:
    async def scenario(rig: Rig) -> None:
        rig.instruments._fetch = Venue(VenueError("away")).fetch
        answer = await rig.ask("POST", f"/instruments/refresh{query}", body)
        assert (answer.status, [row["exchange"] for row in answer.body]) == (200, asked)

    run_with_rig(scenario)


@pytest.mark.parametrize(
    ("body", "field"),
    [({"exchange": "Nope"}, "exchange"), ({"x": 1}, "x"), ({"exchange": 1}, "exchange"), ([], "")],
)
def test_a_refresh_that_is_asked_for_wrongly_asks_nobody(body: Any, field: str) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("POST", "/instruments/refresh", body)
        assert (answer.status, answer.body["kind"]) == (400, "invalid_argument")
        assert answer.body.get("field", "") == field
        assert {rig.instruments.wait_s(venue) for venue in VENUES} == {0.0}

    run_with_rig(scenario)


def test_a_refresh_that_hangs_is_a_503_in_time_and_joined_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(route, "ANSWER_WITHIN_S", 0.05)

    async def scenario(rig: Rig) -> None:
        asked: list[str] = []
        answered = asyncio.Event()

        async def fetch(venue: Any) -> list[bytes]:
            asked.append(venue.name)
            if venue.name == HL:
                await answered.wait()
                return [meta("BTC", "NEW")]
            raise VenueError("binance_linear: HTTP 503")

        rig.instruments._fetch = fetch
        path = "/instruments/refresh?exchange=HyperliquidPerp"
        async with asyncio.timeout(30):
            for _ in range(3):
                answer = await rig.ask("POST", path)
                assert (answer.status, answer.body["kind"]) == (503, "unavailable")
                assert int(answer.headers["retry-after"]) >= 1
            assert asked == [HL], "one fetch, which the others joined"
            both = await rig.ask("POST", "/instruments/refresh")
            rows = {row["exchange"]: row for row in both.body}
            assert "is being asked" in rows[HL]["error"]
            assert rows["binance_linear"]["error"] == "binance_linear: HTTP 503"
            monkeypatch.setattr(route, "ANSWER_WITHIN_S", 20.0)
            joined = asyncio.create_task(rig.ask("POST", path))
            await asyncio.sleep(0)
            answered.set()
            (row,) = (await joined).body
            assert (row["instrument_count"], row.get("error", "")) == (2, "")
        assert asked.count(HL) == 1

    run_with_rig(scenario)


def test_while_the_venue_bans_us_nobody_waits_for_it() -> None:
    async def scenario(rig: Rig) -> None:
        rig.supervisor.blocked_s = 3600.0
        rig.supervisor.tell()
        answer = await rig.ask("POST", "/instruments/refresh?exchange=BinanceLinear")
        assert (answer.status, answer.headers["retry-after"]) == (503, "3600")
        assert "binance_linear told us not to ask for another 3,600 s" in answer.body["error"]

    run_with_rig(scenario)


def test_only_so_many_clients_wait_for_a_venue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "ASKERS_MAX", 2)

    async def scenario(rig: Rig) -> None:
        answered = asyncio.Event()

        async def fetch(_: Any) -> list[bytes]:
            await answered.wait()
            return [meta("BTC")]

        rig.instruments._fetch = fetch
        path = "/instruments/refresh?exchange=HyperliquidPerp"
        asking = [asyncio.create_task(rig.ask("POST", path)) for _ in range(2)]
        await asyncio.sleep(0)
        third = await rig.ask("POST", path)
        assert (third.status, third.body["kind"]) == (429, "too_many_requests")
        assert "retry-after" in third.headers
        answered.set()
        assert [(await each).status for each in asking] == [200, 200]

    run_with_rig(scenario)
