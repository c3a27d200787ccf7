"""A venue from outside plugs in as one encoder: pages, a login, a refusal, two kinds on a topic."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shards.simulator.core.ledger import Rows, read_ledger
from shards.simulator.settings import SimulatorSettings
from tests.shards.simulator.conftest import receive
from tests.toys.simulator import Toy

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

TICKER, BOOK, SETTLED = "ticker.T0-USD", "book.T0-USD", "settled.T0-USD"
KINDS = {"trades": "trade", "quote": "quote", "book": "book", "settlement": "settlement"}


def asked(number: int, *topics: str) -> dict[str, object]:
    return {"op": "subscribe", "id": number, "topics": topics}


def refused(number: int, *topics: str) -> dict[str, object]:
    text = f"not permitted: {', '.join(topics)}"
    return {"type": "refused", "id": number, "topics": [*topics], "text": text}


def test_a_toy_venue_is_served_and_recorded(simulated: "Simulated", tmp_path: Path) -> None:
    messages: list[Any] = []

    async def scenario(client: "Client") -> None:
        pages = [await client.get(f"/toy/instruments?page={page}") for page in (0, 1)]
        listed = [[row["symbol"] for row in page["rows"]] for page in pages]
        assert listed == [["T0-USD", "T1-USD"], ["T2-USD", "T3-USD"]]
        assert [page["next"] for page in pages] == [1, None]
        status = client.simulator.status()["venues"]["toy"]
        assert status["rest"]["weight_used"] == 10
        socket = await client.socket("/toy/ws")
        for request, answer in (
            (asked(1, TICKER), refused(1, TICKER)),
            ({"login": "me"}, {"type": "welcome"}),
            (asked(2, "ticker.T3-USD", BOOK, "book.T9"), refused(2, "ticker.T3-USD", "book.T9")),
            (asked(3, TICKER, BOOK, SETTLED), {"type": "done", "id": 3}),
        ):
            await socket.send_json(request)
            assert await receive(socket) == answer
        while {word_of(each) for each in messages} < KINDS.keys():
            messages.append(await receive(socket))
        sent = (await client.post("/simulator/pause"))["sent"]
        while any(sent[kind] > len(rows_of(word, messages)) for word, kind in KINDS.items()):
            messages.append(await receive(socket))

    settings = SimulatorSettings(trades_per_s=1000.0, symbols=4, ledger=tmp_path)
    simulated(settings, scenario, [Toy])
    ledger = read_ledger(tmp_path)
    assert ledger.venues == ("toy",)
    for word, kind in KINDS.items():
        rows = ledger.of(kind)
        assert rows is not None
        assert recorded(kind, rows) == rows_of(word, messages), kind
    books = [each for each in messages if word_of(each) == "book"]
    assert [each["form"] for each in books] == ["snapshot"] + ["update"] * (len(books) - 1)


@pytest.mark.fault("N03")
def test_what_a_venue_does_not_say_is_not_in_its_ledger(
    simulated: "Simulated", tmp_path: Path
) -> None:
    """No prices, no interval. What no client can read is the first member it names."""

    async def scenario(client: "Client") -> None:
        path = "/toy/contract?symbol=T0-USD"
        fault = {"fault": "unreadable", "venue": "toy", "symbol": "T0-USD", "rest": True}
        await client.post("/simulator/pause")
        await client.post("/simulator/faults", {**fault, "kind": "funding", "variant": "nan"})
        assert (await client.get(path))["rate"] == "NaN"
        good = await client.get(path)
        assert await client.get(path) == good, "the market stands still"
        with pytest.raises(AssertionError, match="kind must be one of trade, book, quote, funding"):
            await client.post("/simulator/faults", {**fault, "kind": "liquidation"})
        await client.post("/simulator/pause")
        ledger = read_ledger(tmp_path)
        (row,) = ledger.funding.tolist()
        said = dict(zip(ledger.funding.dtype.names or (), row, strict=True))
        assert said["rate_mantissa"] == digits(good["rate"])
        assert (said["next_ts"], said["rest"]) == (good["next"] * 1_000_000, 1)
        assert (said["mark_mantissa"], said["index_mantissa"]) == (0, 0)
        assert ledger.open_interest["qty_mantissa"].tolist() == [digits(good["open"])]
        assert len(ledger.interval) == 0
        assert len(ledger.unreadable) == 1

    settings = SimulatorSettings(trades_per_s=0.0, symbols=4, ledger=tmp_path)
    simulated(settings, scenario, [Toy])


def word_of(message: Any) -> str:
    """What a message is of, without whose."""
    return str(message["type"].partition(".")[0])


def rows_of(word: str, messages: list[Any]) -> list[list[int]]:
    """The numbers that messages of a type say, without their points."""
    said = [each for each in messages if word_of(each) == word]
    if word == "trades":
        return [
            [row["id"], digits(row["price"]), digits(row["qty"])]
            for each in said
            for row in each["rows"]
        ]
    if word == "quote":
        return [[each["seq"], *map(digits, (*each["bid"], *each["ask"]))] for each in said]
    if word == "settlement":
        return [[each["contract"], digits(each["price"]), digits(each["volume"])] for each in said]
    return [
        [each["seq"], *map(digits, level)]
        for each in said
        for level in (*each["bids"], *each["asks"])
    ]


FIELDS = {
    "trade": ["trade_id", "price_mantissa", "qty_mantissa"],
    "quote": ["seq", "bid_mantissa", "bid_qty_mantissa", "ask_mantissa", "ask_qty_mantissa"],
    "book": ["seq", "price_mantissa", "qty_mantissa"],
    "settlement": ["contract", "price_mantissa", "volume_mantissa"],
}


def recorded(kind: str, rows: Rows) -> list[list[int]]:
    return [list(row) for row in rows[FIELDS[kind]].tolist()]


def digits(text: str) -> int:
    return int(text.replace(".", ""))
