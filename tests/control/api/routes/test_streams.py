"""`/streams` as the seed's clients know it, and every way to be refused."""

import asyncio
from typing import Any
from urllib.parse import quote, unquote

import pytest

from control.http.errors import ApiError
from engine.data.instrument import InstrumentKind, InstrumentState
from engine.data.names import StreamKey, StreamKind, Transport
from engine.messages.control import AddStreams
from engine.messages.streams import StreamState
from shards.venues import VENUES
from tests.control.api.api_rig import Rig, instrument, run_with_rig

BTC: dict[str, Any] = {
    "exchange": "BinanceLinear", "symbol": "BTCUSDT", "kind": "Trades", "transport": "Ws",
}  # fmt: skip
BTC_KEY = StreamKey("binance_linear", "BTCUSDT", StreamKind.TRADES, Transport.WS)

SEED_CALLS = [
    ("BinanceLinear", "BTCUSDT", "OpenInterest", "HttpPoll"),
    ("BinanceLinear", "BTCUSDT", "Funding", "HttpPoll"),
    ("BinanceLinear", "BTCUSDT", "Trades", "Ws"),
    ("BinanceLinear", "BTCUSDT", "L2Book", "Ws"),
    ("BinanceLinear", "BTCUSDT", "Liquidations", "Ws"),
    ("HyperliquidPerp", "BTC", "Trades", "Ws"),
    ("HyperliquidPerp", "BTC", "L2Book", "Ws"),
    ("HyperliquidPerp", "BTC", "FundingOpenInterest", "Ws"),
]


def test_the_seeds_sequence_of_calls_works_as_it_stands() -> None:
    async def scenario(rig: Rig) -> None:
        assert (await rig.ask("GET", "/streams")).body == []
        for exchange, symbol, kind, transport in SEED_CALLS:
            body = {
                "exchange": exchange, "symbol": symbol, "kind": kind, "transport": transport,
            }  # fmt: skip
            added = await rig.ask("POST", "/streams", body)
            assert (added.status, added.body) == (201, "ok")
            again = await rig.ask("POST", "/streams", body)
            assert (again.status, again.body["kind"]) == (409, "stream_exists")
            shown = await rig.ask("GET", f"/streams/{exchange}/{symbol}/{kind}/{transport}")
            assert shown.status == 200
            assert (shown.body["state"], shown.body["status"]) == ("pending", "Running")
            assert shown.body["spec"]["kind"] == kind
        assert (await rig.ask("GET", "/streams/count")).body == {"count": len(SEED_CALLS)}
        path = "/streams/BinanceLinear/BTCUSDT/Trades/Ws/knobs"
        knobs = (await rig.ask("GET", path)).body["knobs"]
        assert knobs["db_writes_enabled"] is True
        patch = {"db_writes_enabled": True, "redis_publishes_enabled": True}
        assert (await rig.ask("PATCH", path, patch)).body == "ok"
        for exchange, symbol, kind, transport in SEED_CALLS:
            body = {
                "exchange": exchange, "symbol": symbol, "kind": kind, "transport": transport,
            }  # fmt: skip
            assert (await rig.ask("DELETE", "/streams", body)).body == "ok"
            gone = await rig.ask("DELETE", "/streams", body)
            assert (gone.status, gone.body["kind"]) == (404, "stream_not_found")
        assert (await rig.ask("GET", "/streams/count")).body == {"count": 0}

    run_with_rig(scenario)


def test_what_was_accepted_is_shown_at_once() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.ask("POST", "/streams", BTC | {"knobs": {"flush_rows": 7}})
        (row,) = (await rig.ask("GET", "/streams")).body
        assert (row["state"], row["knobs"]["flush_rows"]) == ("pending", 7)
        await rig.ask("DELETE", "/streams", BTC)
        assert (await rig.ask("GET", "/streams")).body == []
        rig.supervisor.run(BTC_KEY)  # somebody else adds it
        rig.supervisor.tell()
        (row,) = (await rig.ask("GET", "/streams")).body
        assert row["state"] == "live", "what was removed here may live again at once"

    run_with_rig(scenario)


@pytest.mark.parametrize("exchange", ["BinanceLinear", "binance_linear"])
def test_both_spellings_and_no_transport(exchange: str) -> None:
    async def scenario(rig: Rig) -> None:
        body = {"exchange": exchange, "symbol": "BTCUSDT", "kind": "OpenInterest"}
        assert (await rig.ask("POST", "/streams", body)).status == 201
        (row,) = (await rig.ask("GET", f"/streams?exchange={exchange}")).body
        assert row["id"] == "binance_linear:BTCUSDT:HttpPoll:OpenInterest"
        assert (await rig.ask("DELETE", "/streams", body)).status == 200

    run_with_rig(scenario)


@pytest.mark.parametrize(
    ("body", "status", "kind", "field"),
    [
        (BTC | {"exchange": "Nasdaq"}, 400, "invalid_argument", "exchange"),
        (BTC | {"kind": "Candles"}, 400, "invalid_argument", "kind"),
        (BTC | {"transport": "Fax"}, 400, "invalid_argument", "transport"),
        (BTC | {"symbol": 7}, 400, "invalid_argument", "symbol"),
        (BTC | {"symbol": "'; DROP TABLE trade --"}, 400, "invalid_argument", "symbol"),
        (BTC | {"symbol": "BTCUSDT\n"}, 400, "invalid_argument", ""),
        (BTC | {"symbol": "BTC\u202eUSDT"}, 400, "invalid_argument", "symbol"),
        (BTC | {"symbol": "BTC\u2019USDT"}, 400, "invalid_argument", "symbol"),
        (BTC | {"symbol": "BTC\xa0USDT"}, 400, "invalid_argument", "symbol"),
        (BTC | {"symbol": "BTC\u3000USDT"}, 404, "unknown_symbol", "symbol"),
        (BTC | {"symbol": "币" * 33}, 400, "invalid_argument", "symbol"),
        (BTC | {"symbol": ""}, 400, "invalid_argument", "symbol"),
        (BTC | {"url": "http://evil"}, 400, "invalid_argument", "url"),
        (BTC | {"knobs": {"flush": 1}}, 400, "invalid_argument", "knobs.flush"),
        (BTC | {"knobs": {"flush_rows": 0}}, 400, "invalid_argument", "knobs.flush_rows"),
        (
            BTC | {"knobs": {"flush_rows": 1001, "max_rows_per_copy": 1000}},
            422, "contradiction", "knobs.flush_rows",
        ),
        ({"exchange": "BinanceLinear"}, 400, "invalid_argument", "symbol"),
        ([BTC, BTC | {"kind": 1}], 400, "invalid_argument", "[1].kind"),
        ([BTC | {"exchange": "Nasdaq"}], 400, "invalid_argument", "[0].exchange"),
        ([], 400, "invalid_argument", ""),
        ("BTC", 400, "invalid_argument", ""),
        (BTC | {"symbol": "BTCUSTD"}, 404, "unknown_symbol", "symbol"),
        (BTC | {"kind": "OpenInterest"}, 422, "not_offered", "kind"),
        (BTC | {"kind": "Ticker"}, 422, "not_offered", "kind"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(body: Any, status: int, kind: str, field: str) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("POST", "/streams", body)
        assert (answer.status, answer.body["kind"]) == (status, kind), answer.body
        assert answer.body.get("field", "") == field
        assert "\n" not in answer.body["error"]
        assert rig.supervisor.received == [], "nothing reached the engine"

    run_with_rig(scenario)


def test_a_wrong_word_comes_with_the_right_ones() -> None:
    kinds = ", ".join(StreamKind)
    hint, ex = "did you mean Trades?", "did you mean BinanceLinear?"

    async def scenario(rig: Rig) -> None:
        for method, path, body, expected in (
            (
                "POST",
                "",
                [BTC | {"kind": "trads"}],
                f"[0].kind: 'trads' is none of {kinds}; {hint}",
            ),
            ("POST", "", BTC | {"transport": "tcp"}, "transport: 'tcp' is none of Ws, HttpPoll"),
            (
                "POST",
                "",
                BTC | {"exchange": "BinanceLin"},
                f"exchange: unknown exchange 'BinanceLin'; {ex}",
            ),
            ("POST", "", BTC | {"knob": {}}, "knob: unknown key; did you mean knobs?"),
            ("GET", "?kind=trads", None, f"kind: 'trads' is none of {kinds}; {hint}"),
            ("GET", "?exchnge=x", None, "exchnge: unknown key; did you mean exchange?"),
        ):
            answer = await rig.ask(method, f"/streams{path}", body)
            assert (answer.status, answer.body["error"]) == (400, expected)

    run_with_rig(scenario)


@pytest.mark.fault("N37")
def test_names_are_understood_in_any_case() -> None:
    async def scenario(rig: Rig) -> None:
        typed = {"exchange": "BINANCE_linear", "symbol": "BTCUSDT", "kind": "l2_book"}
        answer = await rig.ask("POST", "/streams", typed | {"transport": "WS"})
        assert answer.status == 201, answer.body
        for query in ("kind=l2book", "exchange=binancelinear&transport=ws", "kind=L2BOOK"):
            (row,) = (await rig.ask("GET", f"/streams?{query}")).body
            assert (row["kind"], row["exchange"]) == ("L2Book", "binance_linear")
        path = "/streams/BinanceLINEAR/BTCUSDT/l2book/ws"
        assert (await rig.ask("GET", path)).status == 200

    run_with_rig(scenario)


def test_unknown_symbol_comes_with_near_names_and_refusals_with_what_is_offered() -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("POST", "/streams", BTC | {"symbol": "BTCUSTD"})
        assert "BTCUSDT" in answer.body["near"]
        lower = BTC | {"exchange": "HyperliquidPerp", "symbol": "KPEPE"}
        assert (await rig.ask("POST", "/streams", lower)).body["near"] == ["kPEPE"]
        answer = await rig.ask("POST", "/streams", BTC | {"transport": "HttpPoll"})
        assert answer.status == 422
        assert "Funding/HttpPoll" in answer.body["offered"]

    run_with_rig(scenario)


@pytest.mark.fault("N04")
def test_a_symbol_whose_row_cannot_be_read_is_refused_with_the_field() -> None:
    async def scenario(rig: Rig) -> None:
        why = "quoteAsset: Expected `str`, got `null`"
        rig.instruments._unreadable["binance_linear"] = {"ODDUSDT": why}
        answer = await rig.ask("POST", "/streams", BTC | {"symbol": "ODDUSDT"})
        assert (answer.status, answer.body["kind"]) == (404, "unknown_symbol")
        assert answer.body["error"].endswith(f"but its row cannot be read: {why}")

    run_with_rig(scenario)


@pytest.mark.fault("A02")
@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "body is needed"),
        (b"{", "not JSON"),
        (b'{"symbol": NaN}', "NaN is not JSON"),
        (b'{"symbol": Infinity}', "not JSON"),
        (b'{"symbol": "\xff"}', "not UTF-8"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b'{"symbol": "A", "symbol": "B"}', "given twice"),
        (b'{"symbol": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"symbol": ' + b"9" * 10_000 + b"}", "not usable"),
        (b'{"symbol": "\\ud800"}', ""),
        (b'{"symbol": "\\u0000"}', ""),
        (b'{"\\ud800": 1}', ""),
        (b'{"\\ud800": 1, "\\ud800": 2}', "given twice"),
        (b'{"a\\nb\\u001b[2J": 1}', "a\\nb\\x1b[2J"),
        (b"null", ""),
    ],
)
def test_bodies_that_are_no_json(raw: bytes, text: str) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("POST", "/streams", raw=raw, headers={
            "content-type": "application/json"})  # fmt: skip
        assert answer.status == 400
        assert text in answer.body["error"]
        assert answer.body["kind"] == "invalid_argument"

    run_with_rig(scenario)


@pytest.mark.fault("A03")
def test_a_body_is_at_most_one_mebibyte() -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("POST", "/streams", raw=b" " * ((1 << 20) + 1))
        assert (answer.status, answer.body["kind"]) == (413, "body_too_large")
        answer = await rig.ask("POST", "/streams", raw=b" " * (1 << 20))
        assert answer.status == 400

    run_with_rig(scenario)


def test_a_list_is_one_command_with_a_result_for_each() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.ask("POST", "/streams", BTC)
        wanted = [
            BTC, BTC | {"symbol": "ETHUSDT"}, BTC | {"symbol": "ETHUSDT"}, BTC | {"symbol": "NO"},
            BTC | {"kind": "Ticker"},
        ]  # fmt: skip
        answer = await rig.ask("POST", "/streams", wanted)
        assert answer.status == 200
        assert (answer.body["accepted"], answer.body["refused"]) == (1, 4)
        kinds = sorted(item.get("error_kind", "") for item in answer.body["results"])
        assert kinds == ["", "not_offered", "stream_exists", "stream_exists", "unknown_symbol"]
        assert sum(isinstance(each, AddStreams) for each in rig.supervisor.received) == 2
        answer = await rig.ask("DELETE", "/streams", [*wanted[:2], BTC])
        assert (answer.body["accepted"], answer.body["refused"]) == (2, 1)
        assert [item.get("error_kind", "") for item in answer.body["results"]] == [
            "", "", "stream_not_found",
        ]  # fmt: skip

    run_with_rig(scenario)


def test_a_filter_adds_and_removes_in_bulk() -> None:
    async def scenario(rig: Rig) -> None:
        gone = rig.instruments._listings["binance_linear"]
        gone["SOLUSDT"] = instrument(
            "binance_linear", "SOLUSDT", status="CLOSE", state=InstrumentState.DELISTED
        )
        body: dict[str, Any] = {
            "exchange": "BinanceLinear", "kind": "Trades", "filter": {"quote": "usdt"},
        }  # fmt: skip
        answer = await rig.ask("POST", "/streams", body)
        symbols = [item["symbol"] for item in answer.body["results"]]
        assert symbols == ["BTCUSDT", "ETHUSDT"]
        body["filter"] = {"symbol": "*USD?", "limit": 1}
        answer = await rig.ask("POST", "/streams", body)
        assert (answer.body["matched"], len(answer.body["results"])) == (3, 1)
        body["filter"] = {"base": "NOTHING"}
        answer = await rig.ask("POST", "/streams", body)
        assert (answer.status, answer.body["results"]) == (200, [])
        body["filter"] = {"symbol": "ETH*"}
        assert (await rig.ask("DELETE", "/streams", body)).body["accepted"] == 1
        body["filter"] = {"qoute": "USDT"}
        answer = await rig.ask("DELETE", "/streams", body)
        assert (answer.status, answer.body["field"]) == (400, "filter.qoute")

    run_with_rig(scenario)


def test_a_kind_that_an_instrument_cannot_have_is_refused_and_a_filter_skips_it() -> None:
    async def scenario(rig: Rig) -> None:
        listing = rig.instruments._listings["binance_linear"]
        listing["BTCUSDT"] = instrument("binance_linear", "BTCUSDT", kind=InstrumentKind.SPOT)
        wanted = BTC | {"kind": "OpenInterest", "transport": "HttpPoll"}
        answer = await rig.ask("POST", "/streams", wanted)
        assert (answer.status, answer.body["kind"]) == (422, "not_offered")
        assert answer.body["field"] == "kind"
        assert answer.body["error"] == (
            "binance_linear can have no OpenInterest of BTCUSDT, for its kind is spot"
        )
        answer = await rig.ask("POST", "/streams", [wanted, wanted | {"symbol": "ETHUSDT"}])
        assert (answer.body["accepted"], answer.body["refused"]) == (1, 1)
        body = {"exchange": "BinanceLinear", "kind": "OpenInterest"}
        answer = await rig.ask("POST", "/streams", body | {"filter": {"limit": 1}})
        (item,) = answer.body["results"]
        assert item["symbol"] != "BTCUSDT", "it takes no place of the limit"
        assert answer.body["skipped"] == 1
        answer = await rig.ask("POST", "/streams", body | {"filter": {"kind": "perpetual"}})
        assert answer.body["skipped"] == 0

    run_with_rig(scenario)


def test_a_filter_takes_what_is_traded_and_what_it_is_paid_in() -> None:
    async def scenario(rig: Rig) -> None:
        listing = rig.instruments._listings["binance_linear"]
        future = {"kind": InstrumentKind.FUTURE, "venue_kind": "QUARTER", "settle": "BTC"}
        listing["BTCUSDT"] = instrument("binance_linear", "BTCUSDT", **future)
        body = {"exchange": "BinanceLinear", "kind": "Trades"}
        for number, (conditions, count) in enumerate((
            ({"kind": "future", "settle": "btc"}, 1), ({"venue_kind": "quarter"}, 1),
            ({"kind": "perpetual"}, 3), ({"kind": "perpetual", "state": "trading"}, 3),
            ({"kind": "spot"}, 0), ({"state": "halted"}, 0),
        )):  # fmt: skip
            answer = await rig.ask("POST", "/streams", body | {"filter": conditions})
            assert (number, answer.body["matched"]) == (number, count)
        answer = await rig.ask("DELETE", "/streams", body | {"filter": {"kind": "future"}})
        assert [item["symbol"] for item in answer.body["results"]] == ["BTCUSDT"]
        answer = await rig.ask("POST", "/streams", body | {"filter": {"kind": "swap"}})
        assert (answer.status, answer.body["field"]) == (400, "filter.kind")

    run_with_rig(scenario)


def test_what_trades_no_more_is_refused_with_the_reason() -> None:
    async def scenario(rig: Rig) -> None:
        listing = rig.instruments._listings["binance_linear"]
        for symbol, status, state in (
            ("ETHUSDT", "SETTLING", InstrumentState.SETTLING),
            ("SOLUSDT", "CLOSE", InstrumentState.DELISTED),
            ("BTCUSDC", "DELIVERED", InstrumentState.EXPIRED),
        ):
            listing[symbol] = instrument("binance_linear", symbol, status=status, state=state)
        answer = await rig.ask("POST", "/streams", BTC | {"symbol": "ETHUSDT"})
        assert (answer.status, answer.body["kind"]) == (422, "not_offered")
        assert answer.body["error"] == (
            "binance_linear does not trade ETHUSDT now: its status is SETTLING; a filter that names"
            " this status begins the stream and waits"
        )
        named = {"exchange": "BinanceLinear", "kind": "Trades", "filter": {"status": "settling"}}
        answer = await rig.ask("POST", "/streams", named)
        assert [item["ok"] for item in answer.body["results"]] == [True]
        named["filter"] = {"state": "settling"}
        answer = await rig.ask("POST", "/streams", named)
        assert [item["error_kind"] for item in answer.body["results"]] == ["stream_exists"]
        answer = await rig.ask("POST", "/streams", BTC | {"symbol": "BTCUSDC"})
        assert (answer.status, answer.body["kind"]) == (422, "not_offered")
        assert answer.body["field"] == "symbol"
        text = "binance_linear does not trade BTCUSDC any more: its status is DELIVERED"
        assert answer.body["error"] == text
        answer = await rig.ask("POST", "/streams", [BTC | {"symbol": "SOLUSDT"}])
        assert answer.body["results"][0]["error_kind"] == "not_offered"
        every = {"exchange": "BinanceLinear", "kind": "Trades", "filter": {"status": None}}
        answer = await rig.ask("POST", "/streams", every)
        found = {item["symbol"]: item.get("error_kind", "") for item in answer.body["results"]}
        assert found == {
            "BTCUSDT": "", "ETHUSDT": "stream_exists", "SOLUSDT": "not_offered",
            "BTCUSDC": "not_offered",
        }  # fmt: skip

    run_with_rig(scenario)


def test_what_a_filter_ends_is_what_it_says_and_no_more() -> None:
    async def scenario(rig: Rig) -> None:
        listing = rig.instruments._listings["binance_linear"]
        listing["SOLUSDT"] = instrument("binance_linear", "SOLUSDT", status="CLOSE")
        running = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "GONEUSDT"]

        async def ended(conditions: dict[str, Any]) -> list[str]:
            for symbol in running:
                rig.supervisor.run(StreamKey("binance_linear", symbol, StreamKind.TRADES))
            rig.supervisor.tell()
            body = {"exchange": "binance_linear", "kind": "Trades", "filter": conditions}
            answer = await rig.ask("DELETE", "/streams", body)
            assert answer.status == 200
            return [item["symbol"] for item in answer.body["results"]]

        assert await ended({"status": "DELISTED"}) == []
        assert await ended({"status": "CLOSE"}) == ["SOLUSDT"]
        assert await ended({"status": "close", "symbol": "BTC*"}) == []
        assert await ended({"status": "TRADING"}) == ["BTCUSDT", "ETHUSDT"]
        assert await ended({"quote": "USDT"}) == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
        assert await ended({"symbol": "GONE*"}) == ["GONEUSDT"], "no longer listed"
        assert await ended({"status": None, "symbol": "*N*"}) == ["GONEUSDT"]
        assert await ended({}) == sorted(running)
        del rig.instruments._listings["binance_linear"]
        body = {"exchange": "binance_linear", "kind": "Trades", "filter": {"quote": "USDT"}}
        answer = await rig.ask("DELETE", "/streams", body)
        assert (answer.status, answer.body["kind"]) == (503, "unavailable"), "nobody can tell"

    run_with_rig(scenario)


def test_streams_of_a_venue_this_version_does_not_know_are_shown_and_ended() -> None:
    """An older or newer version wrote them into the registry; they cannot run here."""

    async def scenario(rig: Rig) -> None:
        keys = [StreamKey("acme_spot", symbol, StreamKind.TRADES) for symbol in "ABCD"]
        for key in keys:
            rig.supervisor.run(key, StreamState.FAILED)
        rig.supervisor.tell()
        path = "/streams/acme_spot/A/Trades/Ws"
        assert (await rig.ask("GET", path)).body["state"] == "failed"
        assert (await rig.ask("PATCH", f"{path}/knobs", {"flush_rows": 9})).status == 200
        assert (await rig.ask("GET", f"{path}/knobs")).body["knobs"]["flush_rows"] == 9
        assert (await rig.ask("GET", "/streams/count?exchange=acme_spot")).body == {"count": 4}
        one = {"exchange": "acme_spot", "symbol": "A", "kind": "Trades"}
        assert (await rig.ask("DELETE", "/streams", one)).body == "ok"
        answer = await rig.ask("DELETE", "/streams", [one | {"symbol": "B"}])
        assert answer.body["accepted"] == 1
        every = {"exchange": "acme_spot", "kind": "Trades", "filter": {}}
        assert (await rig.ask("DELETE", "/streams", every)).body["accepted"] == 2
        for method in ("POST", "DELETE"):
            answer = await rig.ask(method, "/streams", one)
            assert (answer.status, answer.body["field"]) == (400, "exchange"), "nothing runs there"

    run_with_rig(scenario)


def test_lists_filter_and_page() -> None:
    async def scenario(rig: Rig) -> None:
        for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
            state = StreamState.STALE if symbol == "SOLUSDT" else StreamState.LIVE
            rig.supervisor.run(StreamKey("binance_linear", symbol, StreamKind.TRADES), state)
        rig.supervisor.tell()
        page = await rig.ask("GET", "/streams?limit=1&offset=1")
        assert [row["symbol"] for row in page.body] == ["ETHUSDT"]
        assert page.headers["x-total-count"] == "3"
        for query, count in (
            ("symbol=BTCUSDT", 1), ("kind=L2Book", 0), ("transport=Ws", 3), ("state=stale", 1),
            ("exchange=HyperliquidPerp", 0), ("exchange=BinanceLinear&kind=Trades", 3),
        ):  # fmt: skip
            assert len((await rig.ask("GET", f"/streams?{query}")).body) == count, query
            assert (await rig.ask("GET", f"/streams/count?{query}")).body == {"count": count}
        for query, field in (
            ("exchnage=x", "exchnage"), ("limit=0", "limit"), ("limit=x", "limit"),
            ("state=happy", "state"), ("exchange=Nasdaq", "exchange"), ("limit=1&limit=2", "limit"),
            ("kind=null", "kind"), ("symbol=%ff", "query"), ("=", ""),
        ):  # fmt: skip
            answer = await rig.ask("GET", f"/streams?{query}")
            assert answer.status == 400, query
            assert answer.body.get("field", "") == field, query
        assert (await rig.ask("GET", "/streams/capabilities?x=1")).status == 400

    run_with_rig(scenario)


@pytest.mark.parametrize(
    "symbol",
    ["PURR/USDC", "PURR%2FUSDC", "kPEPE", "xyz:TSLA", "xyz%3ATSLA", quote("币安人生"), "币安人生"],
)
def test_symbols_with_slashes_and_colons_and_in_any_script_have_paths(symbol: str) -> None:
    async def scenario(rig: Rig) -> None:
        plain = unquote(symbol)
        body = {"exchange": "hyperliquid_perp", "symbol": plain, "kind": "Trades"}
        added = await rig.ask("POST", "/streams", body)
        assert added.status == 201
        assert (await rig.ask("GET", added.headers["location"])).body["symbol"] == plain
        path = f"/streams/hyperliquid_perp/{symbol}/Trades/Ws"
        assert (await rig.ask("GET", path)).body["spec"]["symbol"] == plain
        assert (await rig.ask("PATCH", f"{path}/knobs", {"flush_rows": 10})).status == 200
        assert (await rig.ask("GET", f"{path}/knobs")).body["knobs"]["flush_rows"] == 10
        (row,) = (await rig.ask("GET", f"/streams?symbol={quote(plain)}")).body
        assert row["symbol"] == plain
        assert added.headers["location"].isascii()
        assert (await rig.ask("DELETE", "/streams", body)).body == "ok"

    run_with_rig(scenario)


def test_knobs_change_one_by_one_and_null_takes_them_back() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.ask("POST", "/streams", BTC)
        path = "/streams/binance_linear/BTCUSDT/Trades/Ws/knobs"
        await rig.ask("PATCH", path, {"flush_rows": 10, "db_writes_enabled": False})
        await rig.ask("PATCH", path, {"flush_interval_ms": 5, "flush_rows": None})
        assert (await rig.ask("GET", path)).body["knobs"] == {
            "db_writes_enabled": False, "redis_publishes_enabled": True, "flush_rows": None,
            "flush_interval_ms": 5, "max_rows_per_copy": None, "database": None,
        }  # fmt: skip
        assert (await rig.ask("PATCH", path, {})).status == 200
        for patch, field in (
            ({"flush_rows": True}, "flush_rows"), ({"flush_interval_ms": 0}, "flush_interval_ms"),
            ({"disable_db_writes": 1}, "disable_db_writes"), ({"flush_rows": 1.5}, "flush_rows"),
            ({"max_rows_per_copy": 999}, "max_rows_per_copy"),
            ({"db_writes_enabled": None}, "db_writes_enabled"), ([], ""),
        ):  # fmt: skip
            answer = await rig.ask("PATCH", path, patch)
            assert (answer.status, answer.body.get("field", "")) == (400, field)
        for patch in ({"flush_rows": 100_001}, {"flush_rows": 1001, "max_rows_per_copy": 1000}):
            answer = await rig.ask("PATCH", path, patch)
            assert (answer.status, answer.body.get("field", "")) == (422, "flush_rows")
            added = await rig.ask("POST", "/streams", BTC | {"symbol": "ETHUSDT", "knobs": patch})
            assert (added.status, added.body["field"]) == (422, "knobs.flush_rows")
        missing = await rig.ask("PATCH", path.replace("BTCUSDT", "ETHUSDT"), {})
        assert (missing.status, missing.body["kind"]) == (404, "stream_not_found")

    run_with_rig(scenario)


def test_a_whole_book_is_fetched_where_there_is_one_to_fetch() -> None:
    async def scenario(rig: Rig) -> None:
        book = BTC | {"kind": "L2Book"}
        path = "/streams/BinanceLinear/BTCUSDT/L2Book/Ws/snapshot"
        missing = await rig.ask("POST", path)
        assert (missing.status, missing.body["kind"]) == (404, "stream_not_found")
        await rig.ask("POST", "/streams", book)
        taken = await rig.ask("POST", path)
        assert (taken.status, taken.body) == (202, "ok")
        assert (await rig.ask("POST", path, {"levels": 5})).body["field"] == "body"
        await rig.ask("POST", "/streams", BTC)
        trades = await rig.ask("POST", path.replace("L2Book", "Trades"))
        assert (trades.status, trades.body["kind"]) == (422, "not_offered")
        whole = {"exchange": "HyperliquidPerp", "symbol": "BTC", "kind": "L2Book"}
        await rig.ask("POST", "/streams", whole)
        ever = await rig.ask("POST", "/streams/HyperliquidPerp/BTC/L2Book/Ws/snapshot")
        assert ever.status == 422
        assert "whole book already" in ever.body["error"]

    run_with_rig(scenario)


def test_knobs_are_known_by_the_names_they_have_elsewhere() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.ask("POST", "/streams", BTC)
        path = "/streams/binance_linear/BTCUSDT/Trades/Ws/knobs"
        for patch, changed in (
            ({"disable_db_writes": True}, {"db_writes_enabled": False}),
            ({"disable_redis_publishes": True}, {"redis_publishes_enabled": False}),
            ({"disable_db_writes": False, "flush_rows": 9}, {"db_writes_enabled": True}),
            ({"chunk_rows": 4000, "hard_cap_rows": 3000}, {"max_rows_per_copy": 3000}),
            ({"hard_cap_rows": 5000, "chunk_rows": None}, {"max_rows_per_copy": 5000}),
            ({"chunk_rows": None}, {"max_rows_per_copy": None}),
        ):
            assert (await rig.ask("PATCH", path, patch)).status == 200, patch
            knobs = (await rig.ask("GET", path)).body["knobs"]
            assert knobs == knobs | changed, patch
        before = (await rig.ask("GET", path)).body["knobs"]
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"disable_db_writes": True, "db_writes_enabled": False}, "disable_db_writes"),
            ({"hard_cap_rows": 2000, "max_rows_per_copy": 2000}, "hard_cap_rows"),
            ({"chunk_rows": "many"}, "max_rows_per_copy"),
            ({"chunk_rows": 999}, "max_rows_per_copy"),
            ({"chunk_rows": True}, "max_rows_per_copy"),
            ({"disable_redis_publishes": None}, "disable_redis_publishes"),
        ]
        for body, field in wrong:
            answer = await rig.ask("PATCH", path, body)
            assert (answer.status, answer.body["field"]) == (400, field), body
        assert (await rig.ask("GET", path)).body["knobs"] == before

    run_with_rig(scenario)


def test_clients_who_change_different_knobs_at_a_time_both_get_what_they_want() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.ask("POST", "/streams", BTC)
        path = "/streams/binance_linear/BTCUSDT/Trades/Ws/knobs"
        patches = ({"flush_rows": 2000}, {"flush_interval_ms": 60}, {"db_writes_enabled": False})
        answers = await asyncio.gather(*(rig.ask("PATCH", path, patch) for patch in patches))
        assert [answer.status for answer in answers] == [200] * 3
        knobs = (await rig.ask("GET", path)).body["knobs"]
        assert all(knobs | patch == knobs for patch in patches), knobs

    run_with_rig(scenario)


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/streams/BinanceLinear/BTCUSDT/Trades/Ws", 404, "stream_not_found"),
        ("/streams/Nasdaq/BTCUSDT/Trades/Ws", 400, "invalid_argument"),
        ("/streams/BinanceLinear/BTCUSDT/Candles/Ws", 400, "invalid_argument"),
        ("/streams/BinanceLinear/BTCUSDT/Trades/Fax", 400, "invalid_argument"),
        ("/streams/BinanceLinear/%00/Trades/Ws", 400, "invalid_argument"),
        ("/streams/BinanceLinear/../../etc/passwd/Trades/Ws", 400, "invalid_argument"),
        ("/streams/BinanceLinear", 404, "not_found"),
        ("/streams/", 404, "not_found"),
        ("/streams/capabilities/Nasdaq", 400, "invalid_argument"),
    ],
)
def test_paths_that_lead_nowhere(path: str, status: int, kind: str) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("GET", path)
        assert (answer.status, answer.body["kind"]) == (status, kind)

    run_with_rig(scenario)


def test_capabilities_say_what_can_be_asked_for() -> None:
    async def scenario(rig: Rig) -> None:
        everything = (await rig.ask("GET", "/streams/capabilities")).body
        assert {"exchange": "binance_linear", "transport": "HttpPoll", "kind": "OpenInterest",
                "note": None, "proof": "samples", "interval_s": 10.0, "time": "venue",
                } in everything  # fmt: skip
        one = (await rig.ask("GET", "/streams/capabilities/HyperliquidPerp")).body
        assert {row["exchange"] for row in one} == {"hyperliquid_perp"}
        assert {row["exchange"] for row in everything} == VENUES.keys()
        for row in everything:
            if row["exchange"] not in rig.listings:
                continue
            symbol = "BTC" if row["exchange"] == "hyperliquid_perp" else "BTCUSDT"
            body = {name: row[name] for name in ("exchange", "kind", "transport")}
            assert (await rig.ask("POST", "/streams", body | {"symbol": symbol})).status == 201

    run_with_rig(scenario)


@pytest.mark.fault("A13")
def test_a_supervisor_that_does_not_answer_is_a_503_within_the_deadline() -> None:
    async def scenario(rig: Rig) -> None:
        rig.supervisor.run(BTC_KEY)
        rig.supervisor.tell()
        rig.supervisor.deaf = True
        async with asyncio.timeout(30):
            for method, path in (
                ("POST", "/streams"), ("DELETE", "/streams"),
                ("PATCH", "/streams/BinanceLinear/BTCUSDT/Trades/Ws/knobs"),
            ):  # fmt: skip
                answer = await rig.ask(method, path, {} if method == "PATCH" else BTC)
                assert (answer.status, answer.body["kind"]) == (503, "unavailable")
                assert answer.headers["retry-after"] == "2"
        assert rig.backend._waiting == {}

    run_with_rig(scenario)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("limit", 429), ("not_offered", 422), ("stream_exists", 409), ("draining", 503)],
)
def test_the_supervisors_refusals_have_their_status(kind: str, status: int) -> None:
    async def scenario(rig: Rig) -> None:
        rig.supervisor.answer_kind = kind
        answer = await rig.ask("POST", "/streams", BTC)
        assert (answer.status, answer.body["kind"]) == (status, kind)
        assert answer.body["error"] == "refused by the supervisor"
        wait_s = {"limit": "60", "draining": "1"}.get(kind)
        assert answer.headers.get("retry-after") == wait_s

    run_with_rig(scenario)


def test_before_the_instruments_are_known_a_stream_is_a_503_with_the_reason() -> None:
    async def scenario(rig: Rig) -> None:
        rig.instruments.errors["binance_linear"] = "connection refused"
        answer = await rig.ask("POST", "/streams", BTC)
        assert (answer.status, answer.body["kind"]) == (503, "unavailable")
        assert "connection refused" in answer.body["error"]
        assert "retry-after" in answer.headers

    run_with_rig(scenario, listed=False)


def test_an_error_of_an_unknown_kind_is_not_a_success() -> None:
    assert ApiError("something_new", "x").status == 503
