"""What the venues list: fetched, compared, kept, searched."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from control import instruments as module
from control.instruments import Instruments, differences
from engine.catalog import Instrument
from engine.commands import InstrumentEvent
from engine.errors import VenueError
from shards.venues import VENUES
from tests.control.api_rig import Rig, instrument, run_with_rig

HL = "hyperliquid_perp"


def meta(*names: str, decimals: int = 3) -> bytes:
    coins = ",".join(f'{{"name":"{name}","szDecimals":{decimals}}}' for name in names)
    return f'{{"universe":[{coins}]}}'.encode()


class Venue:
    """Answers with what the test says; counts the questions."""

    def __init__(self, body: bytes | Exception) -> None:
        self.body = body
        self.asked = 0

    async def fetch(self, _: Any) -> bytes:
        self.asked += 1
        if isinstance(self.body, Exception):
            raise self.body
        return self.body


Told = list[tuple[str, list[Instrument], list[InstrumentEvent]]]


def make(venue: Venue, directory: Path | None = None, refresh_s: float = 900) -> Any:
    told: Told = []
    only = {HL: VENUES[HL]}
    service = Instruments(only, directory, venue.fetch, lambda *a: told.append(a), refresh_s)
    service.load_files()
    return service, told


def test_differences_name_what_changed() -> None:
    before = {each.symbol: each for each in (instrument(HL, "A"), instrument(HL, "B"))}
    now = {"B": instrument(HL, "B", status="DELISTED"), "C": instrument(HL, "C")}
    assert differences(HL, before, now) == [
        InstrumentEvent(HL, "A", "delisted"),
        InstrumentEvent(HL, "B", "changed", "status: TRADING -> DELISTED"),
        InstrumentEvent(HL, "C", "listed"),
    ]


def test_the_first_listing_is_no_event_and_later_changes_are(tmp_path: Path) -> None:
    async def scenario() -> None:
        venue = Venue(meta("BTC", "ETH"))
        service, told = make(venue, tmp_path)
        assert not service.is_loaded(HL)
        await service.refresh(HL)
        assert (len(told[0][1]), told[0][2]) == (2, [])
        venue.body = meta("BTC", "SOL")
        events = await service.refresh(HL)
        assert [(event.symbol, event.event) for event in events] == [
            ("ETH", "delisted"), ("SOL", "listed"),
        ]  # fmt: skip
        assert told[1][2] == events == [timed.event for timed in service.events]

    asyncio.run(scenario())


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


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"venue": 1}'])
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
        async with asyncio.timeout(10):
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
        assert answer.headers["x-total-count"] == "9"
        assert (await rig.ask("GET", "/instruments/count")).body == {"count": 9}
        assert (await rig.ask("GET", "/instruments/count?quote=USDT")).body == {"count": 3}
        for query in ("name=BTC", "exchange=Nasdaq", "limit=-1", "q="):
            assert (await rig.ask("GET", f"/instruments?{query}")).status == 400, query

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
        async def fetch(venue: Any) -> bytes:
            if venue.name == HL:
                return meta("BTC", "NEW")
            raise VenueError("binance_linear: HTTP 503")

        rig.instruments._fetch = fetch
        answer = await rig.ask("POST", "/instruments/refresh")
        rows = {row["exchange"]: row for row in answer.body}
        assert rows["binance_linear"]["error"] == "binance_linear: HTTP 503"
        assert rows["binance_linear"]["instrument_count"] == 4, "what was known stays"
        assert (rows[HL]["instrument_count"], rows[HL]["event_count"]) == (2, 6)
        assert [each.venue for each in rig.supervisor.stored_instruments] == [HL]
        again = await rig.ask("POST", "/instruments/refresh?exchange=HyperliquidPerp")
        assert (again.status, again.body["kind"]) == (429, "too_many_requests")
        events = (await rig.ask("GET", "/instruments/events?limit=2")).body
        assert len(events) == 2
        assert (await rig.ask("GET", "/instruments/events?exchange=BinanceLinear")).body == []

    run_with_rig(scenario)
