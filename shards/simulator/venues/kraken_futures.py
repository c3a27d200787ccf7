"""Kraken futures as the simulator serves them (WebSocket v1): perpetuals, linear and inverse.

A book is changed by messages of one level each, numbered without holes. A forced order is a trade
of type `liquidation`. The ticker says quote, prices, funding and open interest once a second.
The recent trades that a subscription begins with are what somebody got before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shards.simulator.core.contracts import Contract, Terms
from shards.simulator.core.encoder import (
    Answer,
    Asked,
    BookMessage,
    Encoder,
    Query,
    SocketPath,
)
from shards.simulator.core.frames import (
    Trade,
    compact,
    decimal_text,
    signed_text,
    trimmed_text,
)
from shards.simulator.core.limits import CONNECTS, MESSAGES, SOCKETS, WEIGHT, Per, Then, VenueLimit
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Levels, SymbolState
from shards.simulator.core.usual import (
    RowByRow,
    book_now,
    calls_under,
    listed_grids,
    read_object,
    send_whole,
    tell_past,
)
from shards.simulator.core.venue import SimVenue

__all__ = ["KrakenFutures"]

# contract, start price, price decimals, tick in units of the last, quantity decimals
_TABLE: tuple[tuple[str, float, int, int, int], ...] = (
    ("PF_XBTUSD", 81230.0, 1, 5, 4), ("PF_ETHUSD", 3123.4, 1, 1, 3),
    ("PI_XBTUSD", 81230.0, 1, 5, 0), ("PI_ETHUSD", 3123.45, 2, 5, 0),
    ("PF_SOLUSD", 187.42, 2, 1, 2), ("PF_XRPUSD", 2.3456, 4, 1, 0),
    ("PF_DOGEUSD", 0.213456, 6, 1, 0), ("PF_LTCUSD", 98.76, 2, 1, 2),
    ("PF_LINKUSD", 17.654, 3, 1, 1), ("PF_ADAUSD", 0.65432, 5, 1, 0),
)  # fmt: skip
_INVERSE = "PI_"
_INVERSE_MEDIAN_QTY = 400.0
"""Contracts of an inverse one are dollars."""
_HISTORY_ROWS = 100
_HOUR_MS = 3_600_000


class ContractTradeRows(RowByRow):
    """Writes the trades of one contract on one grid: a frame each."""

    def row(self, trade: Trade) -> str:
        return self.typed(trade, "fill")

    def typed(self, trade: Trade, kind: str) -> str:
        """Write one trade of a type."""
        return (
            f'{{"feed":"trade","product_id":"{self.symbol}",'
            f'"uid":"05af78ac-a774-478c-a50c-{trade.id:012x}",'
            f'"side":"{"buy" if trade.buy else "sell"}","type":"{kind}","seq":{trade.id},'
            f'"time":{trade.ts_ms},"qty":{self.sizes[trade.size]},'
            f'"price":{self.price_text(trade.tick)}}}'
        )


class KrakenFutures(Encoder):
    """The venue's protocol."""

    name = "kraken_futures"
    terms = Terms(
        rate_decimals=12, usual_rate=12_500_000, rate_limit=2_500_000_000, interval_ms=_HOUR_MS,
        mark_decimals=8, says_next=True, with_interest=True, with_quote=True,
    )  # fmt: skip
    spoiled: Mapping[str, Sequence[str]] = {
        "trade": ("price",), "book": ("price",), "funding": ("openInterest",),
        "liquidation": ("price",),
    }  # fmt: skip
    numbered_books = True
    dense_ids = True
    forced_trades = True
    channels: Mapping[str, str] = {"trade": "liquidation", "book": "book", "ticker": "funding"}
    sockets: Sequence[SocketPath] = (SocketPath("ws/v1", "v1"),)
    greeting = b'{"event":"info","version":1}'
    limits: Sequence[VenueLimit] = (
        # Of connects and calls nothing is documented.
        VenueLimit(CONNECTS, 60, 60.0),
        VenueLimit(SOCKETS, 100),
        VenueLimit(MESSAGES, 100, 1.0, Per.SOCKET, Then.HANG_UP),
        VenueLimit(WEIGHT, 60, 60.0),
    )
    first_trade_id = 650_000
    trade_id_stride = 1 << 32
    trade_rows = ContractTradeRows
    statuses: Sequence[str] = ("tradeable", "not tradeable", "post only")

    def __init__(self) -> None:
        self.rest = calls_under("derivatives/api/v3", {"instruments": _list_contracts})

    def grids(self, count: int) -> Sequence[Grid]:
        grids = listed_grids(_TABLE, count, lambda n: (f"PF_SIM{n:03d}USD", 2.0 + n % 50, 4, 1, 1))
        return [
            replace(grid, median_qty=_INVERSE_MEDIAN_QTY) if _is_inverse(grid) else grid
            for grid in grids
        ]

    def price_text(self, grid: Grid, tick: int) -> str:
        return trimmed_text(tick * grid.tick, grid.price_decimals)

    def qty_text(self, grid: Grid, qty: int) -> str:
        return trimmed_text(qty, grid.qty_decimals)

    def topic(self, kind: str, symbol: str) -> str | None:
        return None if kind == "quote" else f"trade {symbol}"

    def due(self, stream: str, steps: int | None) -> bool:
        return True

    def read(self, venue: SimVenue, session: Session, text: str | bytes) -> Asked | None:
        request = read_object(text)
        event, feed, ids = (request.get(key) for key in ("event", "feed", "product_ids"))
        if event not in ("subscribe", "unsubscribe") or not isinstance(ids, list):
            session.send_text(b'{"event":"alert","message":"Bad request"}')
        elif feed not in self.channels:
            session.send_text(b'{"event":"error","message":"Invalid feed"}')
        else:
            topics = [f"{feed} {str(symbol).upper()}" for symbol in ids]
            return Asked(topics, event == "subscribe", is_apart=True)
        return None

    def answer(self, venue: SimVenue, session: Session, request: Asked) -> Sequence[str]:
        feed, _, symbol = request.topics[0].partition(" ")
        if venue.state(symbol) is None:
            session.send_text(b'{"event":"error","message":"Invalid product id"}')
            return ()
        word = "subscribed" if request.begins else "unsubscribed"
        session.send_text(compact({"event": word, "feed": feed, "product_ids": [symbol]}))
        return request.topics

    def begin(self, venue: SimVenue, session: Session, topic: str, request: Asked) -> None:
        feed, _, symbol = topic.partition(" ")
        state = venue.state(symbol)
        assert state is not None
        if feed == "trade":
            head = f'{{"feed":"trade_snapshot","product_id":"{symbol}","trades":['.encode()
            tell_past(
                venue, session, state, _HISTORY_ROWS, lambda said: head + said + b"]}",
                newest_first=True,
            )  # fmt: skip
        elif feed == "book":
            send_whole(venue, session, state, book_now(state, "book"))

    def messages(self, event: BookMessage) -> Sequence[BookMessage]:
        """One for each level."""
        sides = [((level,), ()) for level in event.bids] + [((), (level,)) for level in event.asks]
        return [
            BookMessage(event.stream, event.ts_ms, seq, seq, seq - 1, [*bids], [*asks])
            for seq, (bids, asks) in enumerate(sides, event.first)
        ]

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        ((tick, qty),) = event.bids or event.asks
        return (
            f'{{"feed":"book","product_id":"{state.grid.symbol}",'
            f'"side":"{"buy" if event.bids else "sell"}","seq":{event.last},'
            f'"price":{state.price_text(tick)},"qty":{state.qty_text(qty)},'
            f'"timestamp":{event.ts_ms}}}'
        ).encode()

    def whole(self, state: SymbolState, event: BookMessage) -> bytes:
        bids, asks = (_levels(state, side) for side in (event.bids, event.asks))
        return (
            f'{{"feed":"book_snapshot","product_id":"{state.grid.symbol}",'
            f'"timestamp":{event.ts_ms},"seq":{event.last},"tickSize":null,'
            f'"bids":[{bids}],"asks":[{asks}]}}'
        ).encode()

    def forced(self, state: SymbolState, trade: Trade) -> bytes:
        assert isinstance(state.trade_rows, ContractTradeRows)
        return state.trade_rows.typed(trade, "liquidation").encode()

    def funding(self, venue: SimVenue, contract: Contract) -> bytes:
        state, rate = venue.state_at(contract.index), contract.rate / 1e12
        symbol, decimals = contract.instrument.symbol, contract.mark_decimals
        bid, ask = state.side_texts(state.quote())
        index, qty_decimals = contract.index_price / 10**decimals, contract.instrument.qty_decimals
        amount = rate / index if _is_inverse(contract.instrument) else rate * index
        relative = signed_text(contract.rate, contract.terms.rate_decimals)
        return (
            f'{{"time":{contract.ts_ms},"product_id":"{symbol}","funding_rate":{amount!r},'
            f'"funding_rate_prediction":{amount!r},"relative_funding_rate":{relative},'
            f'"relative_funding_rate_prediction":{relative},'
            f'"next_funding_rate_time":{contract.next_funding_ms},"feed":"ticker",'
            f'"bid":{bid[0]},"ask":{ask[0]},"bid_size":{bid[1]},"ask_size":{ask[1]},'
            f'"volume":31403908.0,"dtm":0,"leverage":"50x",'
            f'"index":{decimal_text(contract.index_price, decimals)},"premium":0.0,'
            f'"last":{bid[0]},"change":1.9974,"suspended":false,'
            f'"tag":"perpetual","pair":"{symbol[3:-3]}:USD",'
            f'"openInterest":{trimmed_text(contract.open_interest, qty_decimals)},'
            f'"markPrice":{decimal_text(contract.mark, decimals)},"maturityTime":0,'
            f'"post_only":false,"volumeQuote":31403908.0}}'
        ).encode()


def _is_inverse(grid: Grid) -> bool:
    return grid.symbol.startswith(_INVERSE)


def _levels(state: SymbolState, levels: Levels) -> str:
    return ",".join(f'{{"price":{price},"qty":{qty}}}' for price, qty in state.level_texts(levels))


def _list_contracts(venue: SimVenue, _: Query) -> Answer:
    rows: list[object] = []
    for grid, status in zip(venue.grids, venue.statuses, strict=True):
        base = grid.symbol[3:-3].replace("XBT", "BTC")
        rows.append(
            {
                "symbol": grid.symbol,
                "type": "futures_inverse" if _is_inverse(grid) else "flexible_futures",
                "tickSize": float(grid.tick_text), "contractSize": 1,
                "tradeable": status != "not tradeable", "impactMidSize": 1000.0,
                "maxPositionSize": 75000000.0, "openingDate": "2022-03-22T13:18:45Z",
                "marginLevels": [], "fundingRateCoefficient": 24,
                "maxRelativeFundingRate": 0.0025, "contractValueTradePrecision": grid.qty_decimals,
                "postOnly": status == "post only", "base": base, "quote": "USD",
                "pair": f"{base}:USD",
            }
        )  # fmt: skip
    return Answer(compact({"result": "success", "instruments": rows}))
