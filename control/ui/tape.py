"""What happens in one symbol: its trades, its book and its newest figures, read from the rings of
the shards that collect it.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from control.state.backend import Backend
from control.ui.candles import Candle, Candles
from control.ui.digits import between, exact_text
from control.ui.event_stream import KEEP_ALIVE, Frames, event_frame
from control.ui.followed import Followed, carrying, streams_of
from control.ui.ladder import BookState, Ladder
from control.ui.newest import newest_of_each
from control.ui.state import DashboardLimits, is_ending
from engine.base.clock import monotonic_s
from engine.data.flags import Flag, Side
from engine.data.instrument import Instrument
from engine.data.kinds import BOOK, TRADE
from engine.data.slots import Slots
from engine.messages.status import StreamReport

TRADES_A_BATCH: Final = 100
"""More than anybody reads in a tenth of a second; the others are counted."""

_LOOK_INTERVAL_S: Final = 0.5
_CHART_INTERVAL_S: Final = 1.0
_DEPTH_LEVELS: Final = 200
_TRADE_HISTORY_ROWS: Final = 1 << 19
"""Of all streams of the ring: what there is of candles before one looks."""
_BOOK_HISTORY_ROWS: Final = 1 << 20
"""As far back as the ring goes: a delta book's snapshot may be an hour old."""
_SIDES: Final = {int(Side.BUY): "B", int(Side.SELL): "S"}
_GAP: Final = int(Flag.AFTER_GAP)


class TapeView:
    """What one viewer of one symbol has been shown, and what comes next."""

    def __init__(self, state: Backend, venue: str, symbol: str, limits: DashboardLimits) -> None:
        self.venue, self.symbol = venue, symbol
        self._state = state
        self._limits = limits
        self._slots = Slots(state.layout.slots)
        self._trades = Followed(state.layout, TRADE, _TRADE_HISTORY_ROWS)
        self._book = Followed(state.layout, BOOK, _BOOK_HISTORY_ROWS)
        self._newest = newest_of_each(state.layout)
        self._ladder = Ladder()
        self._lapped_count = 0
        self._instrument: Instrument | None = None
        self._candles = Candles()
        self._are_candles_new = True
        self._looked_s = self._booked_s = self._charted_s = float("-inf")
        self._described: dict[str, Any] = {}
        self._book_shown: tuple[Any, ...] = ()
        self._depth_shown: tuple[Any, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return is_ending(self._state.status)

    def close(self) -> None:
        """Let go of the rings."""
        self._trades.close()
        self._book.close()
        for newest in self._newest:
            newest.close()

    def tick(self, now_s: float) -> Iterator[bytes]:
        """Frames that are due at `now_s`."""
        if now_s - self._looked_s >= _LOOK_INTERVAL_S:
            self._looked_s = now_s
            yield from self._look()
        trades = self._trade_frame()
        if trades is not None:
            yield trades
        self._update_ladder()
        if now_s - self._booked_s < self._limits.book_interval_s:
            return
        self._booked_s = now_s
        for newest in self._newest:
            if newest.poll():
                yield event_frame(newest.kind.name, newest.body(self._decimals))
        is_due = now_s - self._charted_s >= _CHART_INTERVAL_S
        if is_due:
            self._charted_s = now_s
            yield from self._candle_frames()
        # Neither half an event nor the past while catching up: such a book is not the market's.
        if self._ladder.is_settled and not self._book.follower.is_behind:
            if is_due and (self._ladder.state, self._ladder.seq) != self._depth_shown:
                self._depth_shown = (self._ladder.state, self._ladder.seq)
                yield event_frame("depth", self._depth_body())
            book = self._book_body()
            shown = (book["state"], book["seq"], book["time_ms"], book["attached"])
            if shown != self._book_shown:
                self._book_shown = shown
                yield event_frame("book", book)

    def _look(self) -> Iterator[bytes]:
        """Find the streams, attach what can be attached, and say so when it changed."""
        reports = streams_of(self._state, self.venue, self.symbol)
        if self._trades.look(next(iter(carrying(reports, TRADE)), None)):
            self._candles.clear()
            self._are_candles_new = True
        if self._book.look(next(iter(carrying(reports, BOOK)), None)):
            self._ladder.forget()
            self._lapped_count = 0
        for newest in self._newest:
            newest.look(reports)
        self._find_instrument(reports)
        instrument = self._instrument
        described = {
            "venue": self.venue,
            "symbol": self.symbol,
            "trades": self._trades.describe(),
            "book": self._book.describe(),
            **{newest.kind.name: newest.describe() for newest in self._newest},
            "price_decimals": instrument.price_decimals if instrument else None,
            "qty_decimals": instrument.qty_decimals if instrument else None,
            "tick_size": instrument.tick_size if instrument else "",
            "base": instrument.base if instrument else "",
        }
        if described != self._described:
            self._described = described
            yield event_frame("stream", described)

    def _find_instrument(self, reports: list[StreamReport]) -> None:
        self._slots.refresh()  # appended lines only; a venue may have raised its decimals
        for report in (self._trades.report, self._book.report, *reports):
            entry = self._slots.get(report.slot) if report is not None else None
            if entry is not None and entry.instrument is not None:
                self._instrument = entry.instrument
                return

    @property
    def _decimals(self) -> tuple[int, int]:
        instrument = self._instrument
        return (instrument.price_decimals, instrument.qty_decimals) if instrument else (0, 0)

    def _trade_frame(self) -> bytes | None:
        """The newest trades; None when there are none."""
        newest: deque[tuple[Any, ...]] = deque(maxlen=TRADES_A_BATCH)
        count = lapped = 0
        before = self._trades.follower.lapped_count
        for rows in self._trades.poll():
            if self._trades.follower.lapped_count - before > lapped:
                lapped = self._trades.follower.lapped_count - before
                self._candles.miss()
            self._candles.apply(rows)
            count += len(rows)
            newest.extend(rows[-TRADES_A_BATCH:].tolist())
        if not count and not lapped:
            return None
        prices, sizes = self._decimals
        trades = [
            [
                ts_event // 1_000_000, _SIDES.get(side, "-"), exact_text(price, prices),
                exact_text(qty, sizes), str(trade_id), bool(flags & _GAP),
            ]
            for _, flags, side, _, ts_event, _, _, trade_id, price, qty in newest
        ]  # fmt: skip
        return event_frame("trades", {"count": count, "overrun": lapped > 0, "rows": trades})

    def _candle_frames(self) -> Iterator[bytes]:
        """Candles that have changed; all of them where they are others than before."""
        if self._trades.follower.is_behind:
            return
        rows = [self._candle_line(each) for each in self._candles.changed()]
        if rows or self._are_candles_new:
            yield event_frame("candles", {"is_new": self._are_candles_new, "rows": rows})
        self._are_candles_new = False

    def _candle_line(self, candle: Candle) -> list[Any]:
        """Time, open, high, low, close, volume, what takers bought, whether trades may lack."""
        decimals = self._decimals[0]
        prices = (candle.open, candle.high, candle.low, candle.close)
        return [
            candle.minute * 60_000, *(exact_text(each, decimals) for each in prices),
            candle.volume, candle.buy_volume, candle.is_part,
        ]  # fmt: skip

    def _depth_body(self) -> dict[str, Any]:
        """Levels of a whole book as numbers for a drawing, best first; none of a part of one."""
        is_known = self._ladder.state is BookState.KNOWN and self._book.follower.is_attached
        bids, asks = self._ladder.top(_DEPTH_LEVELS) if is_known else ([], [])
        return {"bids": bids, "asks": asks}

    def _update_ladder(self) -> None:
        for rows in self._book.poll():
            lapped = self._book.follower.lapped_count
            if lapped != self._lapped_count:
                # Rows of this stream may be among those that were overwritten.
                self._lapped_count = lapped
                self._ladder.forget()
            self._ladder.apply(rows)

    def _book_body(self) -> dict[str, Any]:
        prices, sizes = self._decimals
        bids, asks = self._ladder.top(self._limits.levels)
        body: dict[str, Any] = {
            "attached": self._book.follower.is_attached,
            "state": self._ladder.state.value,
            "seq": str(self._ladder.seq),
            "time_ms": self._ladder.ts_event // 1_000_000,
            "bids": [[exact_text(price, prices), exact_text(qty, sizes)] for price, qty in bids],
            "asks": [[exact_text(price, prices), exact_text(qty, sizes)] for price, qty in asks],
        }
        # The best levels of a part of the book need not be the best of the market.
        if bids and asks and self._ladder.state is BookState.KNOWN:
            middle, spread, basis_points = between(body["bids"][0][0], body["asks"][0][0])
            body |= {"mid": middle, "spread": spread, "spread_bps": basis_points}
        return body


async def tape_frames(view: TapeView, limits: DashboardLimits) -> Frames:
    """What one viewer gets. Ends with the view closed, however it ends."""
    sent_s = monotonic_s()
    try:
        while True:
            now_s = monotonic_s()
            for frame in view.tick(now_s):
                sent_s = now_s
                yield frame
            if now_s - sent_s >= limits.keep_alive_s:
                sent_s = now_s
                yield KEEP_ALIVE
            if view.is_over:
                return
            await asyncio.sleep(limits.trades_interval_s)
    finally:
        view.close()
