"""Binance USD-M futures as the simulator serves it: market state, streams and their messages.

Served: `<s>@aggTrade` on /market, `<s>@depth@100ms` on /public. Any other name, or a name on the
wrong category, is acknowledged and stays silent, as the real venue does.
"""

import json
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from shards.simulator.frames import text_frame
from shards.simulator.instruments import (
    BINANCE_LINEAR,
    VENUE_NAMES,
    Instrument,
    binance_instruments,
    decimal_text,
)
from shards.simulator.ledger import BOOK, TRADE, Ledger, Rows
from shards.simulator.market import Market
from shards.simulator.sessions import Hub, Session, Topic, write_all
from shards.simulator.trade_frames import AggTradeRenderer, AggTrades

__all__ = ["BOOK_SLOTS", "BinanceVenue", "Listing"]

BOOK_SLOTS = 20
"""Books step every 100 ms, spread over this many slots so that a thousand do not burst."""

_HISTORY_ROWS = 1 << 17
"""Trades of a symbol REST can still give: more than sockets at full speed hold in flight."""

_HISTORY_TOTAL_ROWS = 1 << 22
"""The same over all symbols, 100 MB."""

_FIRST_TRADE_ID = 4_100_000_000
_FIRST_RAW_ID = 8_100_000_000
_FIRST_UPDATE_ID = 9_700_000_000_000
_TEXT_CACHE = 8192

_HISTORY = np.dtype(
    [
        ("ts_ms", "<i8"),
        ("first", "<i8"),
        ("tick", "<i4"),
        ("size", "<u2"),
        ("fills", "u1"),
        ("buy", "?"),
    ]
)


class Listing:
    """One symbol: its market, its id counters, its renderers and its recent trades."""

    def __init__(self, index: int, instrument: Instrument, seed: int, history_rows: int) -> None:
        self.index = index
        self.instrument = instrument
        activity = max(5, 22 // (1 + index // 3))
        self.market = Market(instrument, seed, 2 * index + BINANCE_LINEAR, activity)
        self.next_id = _FIRST_TRADE_ID + 1_000_003 * index
        self.next_raw = _FIRST_RAW_ID + 1_000_003 * index
        self.last_update = _FIRST_UPDATE_ID + 1_000_003 * index
        self.first_id = self.next_id
        self._history_rows = history_rows
        self._history: Rows = np.empty(1024, _HISTORY)
        self._renderers: dict[bool, AggTradeRenderer] = {}
        self._price_texts: dict[int, str] = {}

    def renderer(self, *, combined: bool) -> AggTradeRenderer:
        """Give the trade renderer for bare or wrapped frames."""
        if combined not in self._renderers:
            market = self.market
            self._renderers[combined] = AggTradeRenderer(
                self.instrument, market.sizes, market.plain_sizes, combined=combined
            )
        return self._renderers[combined]

    def trade(self, count: int, now_ms: int) -> AggTrades:
        """Let `count` trades happen now. Their ids are used up, sent or not."""
        tape = self.market.take(count)
        next_raw = tape.fills.cumsum() + self.next_raw
        trades = AggTrades(
            ts_ms=now_ms,
            first_id=self.next_id,
            ticks=self.market.prices(tape),
            size=tape.size,
            buy=tape.buy,
            first_raw=next_raw - tape.fills,
            last_raw=next_raw - 1,
        )
        self._remember(trades)
        self.next_id += count
        self.next_raw = int(next_raw[-1])
        return trades

    def _remember(self, trades: AggTrades) -> None:
        count = len(trades.ticks)
        used = self.next_id - self.first_id
        capacity = len(self._history)
        while capacity < self._history_rows and used + count > capacity:
            self._history = np.concatenate([self._history, np.empty(capacity, _HISTORY)])
            capacity *= 2
        at = used % capacity
        first_part = min(count, capacity - at)
        self._store(at, trades, slice(0, first_part))
        if first_part < count:
            self._store(0, trades, slice(first_part, count))

    def _store(self, at: int, trades: AggTrades, part: slice) -> None:
        rows = self._history[at : at + part.stop - part.start]
        rows["ts_ms"] = trades.ts_ms
        rows["tick"] = trades.ticks[part]
        rows["size"] = trades.size[part]
        rows["first"] = trades.first_raw[part]
        rows["fills"] = trades.last_raw[part] - trades.first_raw[part] + 1
        rows["buy"] = trades.buy[part]

    def recent_trades(self, from_id: int | None, limit: int) -> list[dict[str, object]]:
        """Answer `GET /aggTrades`: also trades that were withheld from the stream."""
        oldest = max(self.first_id, self.next_id - len(self._history))
        first = self.next_id - limit if from_id is None else from_id
        first = max(oldest, first)
        answer: list[dict[str, object]] = []
        qty_decimals = self.instrument.qty_decimals
        for trade_id in range(first, min(first + limit, self.next_id)):
            row = self._history[(trade_id - self.first_id) % len(self._history)]
            size = int(row["size"])
            answer.append(
                {
                    "a": trade_id,
                    "p": self.price_text(int(row["tick"])),
                    "q": decimal_text(int(self.market.sizes[size]), qty_decimals),
                    "nq": decimal_text(int(self.market.plain_sizes[size]), qty_decimals),
                    "f": int(row["first"]),
                    "l": int(row["first"]) + int(row["fills"]) - 1,
                    "T": int(row["ts_ms"]),
                    "m": not row["buy"],
                }
            )
        return answer

    def price_text(self, tick: int) -> str:
        """Print a price."""
        text = self._price_texts.get(tick)
        if text is None:
            if len(self._price_texts) > _TEXT_CACHE:
                self._price_texts.clear()
            text = decimal_text(tick * self.instrument.tick, self.instrument.price_decimals)
            self._price_texts[tick] = text
        return text

    def levels_text(self, levels: Iterable[tuple[int, int]]) -> str:
        """Print levels as the inside of a JSON array of [price, quantity]."""
        price, decimals = self.price_text, self.instrument.qty_decimals
        return ",".join(
            f'["{price(tick)}","{decimal_text(qty, decimals)}"]' for tick, qty in levels
        )


class BinanceVenue:
    """The streams of all symbols."""

    def __init__(self, count: int, seed: int, ledger: Ledger, symbol_offset: int) -> None:
        """List `count` symbols; the ledger knows them from number `symbol_offset` on."""
        self.instruments = binance_instruments(count)
        self.hub = Hub(VENUE_NAMES[BINANCE_LINEAR], [i.symbol for i in self.instruments])
        self._by_symbol = {i.symbol: index for index, i in enumerate(self.instruments)}
        self._seed = seed
        even_share = 1 << (_HISTORY_TOTAL_ROWS // count).bit_length() - 1
        self._history_rows = min(_HISTORY_ROWS, even_share)
        self._ledger = ledger
        self._symbol_offset = symbol_offset
        self._listings: dict[int, Listing] = {}
        self._slots: list[list[Listing]] = [[] for _ in range(BOOK_SLOTS)]

    @property
    def weights(self) -> list[float]:
        """Each symbol's share of trades, before normalisation."""
        return [instrument.weight for instrument in self.instruments]

    def listing(self, symbol: str) -> Listing | None:
        """Give the symbol's state; its book lives from the first time anyone asks."""
        index = self._by_symbol.get(symbol)
        return None if index is None else self.listing_at(index)

    def listing_at(self, index: int) -> Listing:
        """Give the state of the symbol with this number."""
        listing = self._listings.get(index)
        if listing is None:
            listing = Listing(index, self.instruments[index], self._seed, self._history_rows)
            self._listings[index] = listing
            self._slots[index % BOOK_SLOTS].append(listing)
        return listing

    def served(self, group: str, name: str) -> bool:
        """Tell whether data flows for this stream name on this category."""
        symbol, _, kind = name.partition("@")
        category = {"aggTrade": "market", "depth@100ms": "public"}.get(kind)
        known = symbol == symbol.lower() and symbol.upper() in self._by_symbol
        return known and category == group

    def subscribe(self, session: Session, names: Iterable[str]) -> None:
        """Subscribe; names that lead nowhere are kept but stay silent."""
        for name in names:
            if name not in session.names:
                session.names[name] = None
                if self.served(session.group, name):
                    self.listing(name.partition("@")[0].upper())
                    self.hub.subscribe(session, name)

    def unsubscribe(self, session: Session, names: Iterable[str]) -> None:
        """Forget subscriptions."""
        for name in names:
            session.names.pop(name, None)
            self.hub.unsubscribe(session, name)

    def trade_topic(self, index: int) -> Topic | None:
        """Give who listens to the trades of a symbol, if anyone does."""
        return self.hub.topic(f"{self.instruments[index].symbol.lower()}@aggTrade")

    def emit_trades(self, index: int, count: int, now_ms: int) -> None:
        """Let trades happen and push them to whoever listens."""
        topic = self.trade_topic(index)
        if topic is None:
            return
        listing = self.listing_at(index)
        trades = listing.trade(count, now_ms)
        sent = False
        for combined, sessions in ((False, topic.raw), (True, topic.combined)):
            if sessions:
                frames = listing.renderer(combined=combined).render(trades)
                sent |= write_all(sessions, frames)
        if sent:
            self.hub.trade_counts[index] += count
            if self._ledger.enabled:
                self._ledger.trades(self._trade_rows(listing, trades))

    def withhold_trades(self, index: int, count: int, now_ms: int) -> None:
        """Let trades happen and push them to nobody."""
        listing = self.listing_at(index)
        trades = listing.trade(count, now_ms)
        self.hub.withheld_count += count
        if self._ledger.enabled:
            self._ledger.withheld(self._trade_rows(listing, trades))

    def repeat_last_trade(self, index: int) -> bool:
        """Push the latest trade once more. It is in the ledger already."""
        topic, listing = self.trade_topic(index), self.listing_at(index)
        rows = listing.recent_trades(None, 1)
        if topic is None or not rows:
            return False
        row = rows[0]
        stamp = row["T"]
        payload = {"e": "aggTrade", "E": stamp, "s": listing.instrument.symbol, **row, "st": 1}
        self.push(topic, f"{listing.instrument.symbol.lower()}@aggTrade", compact(payload))
        return True

    @staticmethod
    def push(topic: Topic, name: str, payload: bytes) -> bool:
        """Send one payload, wrapped on combined sockets."""
        delivered = write_all(topic.raw, text_frame(payload)) if topic.raw else False
        if topic.combined:
            wrapped = b'{"stream":"%s","data":%s}' % (name.encode(), payload)
            delivered |= write_all(topic.combined, text_frame(wrapped))
        return delivered

    def _trade_rows(self, listing: Listing, trades: AggTrades) -> Rows:
        instrument = listing.instrument
        rows = np.empty(len(trades.ticks), TRADE)
        rows["venue"] = BINANCE_LINEAR
        rows["symbol"] = self._symbol_offset + listing.index
        rows["ts_event"] = trades.ts_ms * 1_000_000
        rows["trade_id"] = np.arange(trades.first_id, trades.first_id + len(rows))
        rows["side"] = np.where(trades.buy, ord("B"), ord("S"))
        rows["price_mantissa"] = trades.ticks * instrument.tick
        rows["price_decimals"] = instrument.price_decimals
        rows["qty_mantissa"] = listing.market.sizes[trades.size]
        rows["qty_decimals"] = instrument.qty_decimals
        return rows

    def step_books(self, slot: int, now_ms: int) -> None:
        """Advance the books of one slot by 100 ms and push their changes."""
        for listing in self._slots[slot]:
            self.step_book(listing, now_ms)

    def step_book(self, listing: Listing, now_ms: int, *, withheld: bool = False) -> None:
        """Advance one book. The chain of update ids goes on whether or not anyone listens."""
        change = listing.market.step()
        previous = listing.last_update
        count = len(change.bids) + len(change.asks)
        first = previous + 2 + (previous * 7) % 41
        listing.last_update = last = first + max(0, count - 1)
        name = f"{listing.instrument.symbol.lower()}@depth@100ms"
        topic = self.hub.topic(name)
        if topic is None or withheld:
            return
        symbol = listing.instrument.symbol
        bids = sorted(change.bids.items(), reverse=True)
        asks = sorted(change.asks.items())
        payload = (
            f'{{"e":"depthUpdate","E":{now_ms},"T":{now_ms},"s":"{symbol}","ps":"{symbol}",'
            f'"U":{first},"u":{last},"pu":{previous},"b":[{listing.levels_text(bids)}],'
            f'"a":[{listing.levels_text(asks)}],"st":1}}'
        )
        if self.push(topic, name, payload.encode()):
            self.hub.book_event_count += 1
            self.hub.book_counts[listing.index] += max(1, count)
            if self._ledger.enabled:
                self._ledger.book(self.book_rows(listing, now_ms, (last, previous), bids, asks))

    def depth(self, listing: Listing, limit: int, now_ms: int, *, stale: bool) -> bytes:
        """Answer `GET /depth`; a stale answer claims an id far behind every pushed event."""
        bids, asks = listing.market.top(limit)
        last = listing.last_update - (5_000_000 if stale else 0)
        if self._ledger.enabled:
            rows = self.book_rows(listing, now_ms, (last, 0), bids, asks)
            rows["snapshot"] = 1
            self._ledger.snapshot(rows)
        text = (
            f'{{"lastUpdateId":{last},"E":{now_ms},"T":{now_ms},'
            f'"bids":[{listing.levels_text(bids)}],"asks":[{listing.levels_text(asks)}]}}'
        )
        return text.encode()

    def book_rows(
        self,
        listing: Listing,
        now_ms: int,
        chain: tuple[int, int],
        bids: list[tuple[int, int]],
        asks: list[tuple[int, int]],
    ) -> Rows:
        """Make ledger rows of an event; one marker row if it has no level."""
        levels: NDArray[np.int64] = np.array([*bids, *asks] or [(0, 0)], np.int64)
        instrument = listing.instrument
        rows = np.empty(len(levels), BOOK)
        rows["venue"] = BINANCE_LINEAR
        rows["symbol"] = self._symbol_offset + listing.index
        rows["ts_event"] = now_ms * 1_000_000
        rows["seq"], rows["prev_seq"] = chain
        rows["side"] = ord("a") if bids or asks else ord("-")
        rows["side"][: len(bids)] = ord("b")
        rows["price_mantissa"] = levels[:, 0] * instrument.tick
        rows["price_decimals"] = instrument.price_decimals
        rows["qty_mantissa"] = levels[:, 1]
        rows["qty_decimals"] = instrument.qty_decimals
        rows["snapshot"] = 0
        return rows


def compact(value: Mapping[str, object] | list[object]) -> bytes:
    """Print JSON without blanks, as venues do."""
    return json.dumps(value, separators=(",", ":")).encode()
