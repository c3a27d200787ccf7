"""Trades: three rules of completeness, one way into the ring.

`ContiguousTrades`: the venue numbers a symbol's trades without holes, so every missing row is known
by its id. `HistoryTrades`: the venue's ids say nothing (they may be hashes), but the first frame
after a subscribe repeats the recent past; finding our last trade in it proves that nothing was
missed. `UnorderedTrades`: ids of up to 128 bits that say nothing either, and no past: what is
missed between two connections, nobody can say.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice
from operator import attrgetter
from struct import Struct as Layout
from typing import ClassVar, Final

from msgspec import Struct

from engine.base.clock import wall_ns
from engine.data.flags import Flag, GapReason, GapState
from engine.data.kinds import TRADE
from engine.data.positions import Position
from engine.data.ring import HEADER_BYTES, RingProducer
from engine.messages.streams import StreamSpec
from shards.feeds.declared.gaps import Edges, GapLedger
from shards.feeds.declared.unreadable import Unreadable
from shards.feeds.feed import Feed, Frame, Proof, is_renumbered, is_set_back

_PACK_TRADE: Final = TRADE.packer("trade_id_hi")
"""The upper half of the trade id is zero here: ids of most venues fit 64 bits."""
_PACK_WIDE_TRADE: Final = TRADE.packer()
_ROW_BYTES: Final = TRADE.dtype.itemsize
_NONE_YET: Final = -1
_LOOK_CLOSER: Final = -2
_REMEMBERED_TRADES: Final = 4096
_REPEATED_NS: Final = 60_000_000_000
"""Two sockets that are open now are not further apart."""
_BACKFILLED: Final = int(Flag.BACKFILLED)
_HALF: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63
_SIGNED_HALVES: Final = Layout(">qq").unpack
"""Of an id's sixteen bytes: a record holds them as signed numbers."""
_DIGITS_MAX: Final = 19
"""Of a number below 2^63, which is shown as it is."""
_UUID_CHARS: Final = 36


def wide_id(text: str) -> int:
    """A venue's id of a trade in 128 bits, the same for the same text: a UUID or a number (without
    leading zeros, below 2^63) as it is, any other text as its hash.
    """
    # No regular expression: UUIDs are read at the pace of trades, and this takes a third of it.
    if len(text) == _UUID_CHARS and text[8:24:5] == "----":
        try:
            sixteen = bytes.fromhex(text.replace("-", ""))
        except ValueError:
            sixteen = b""
        if len(sixteen) == 16:  # `fromhex` leaves out blanks
            return int.from_bytes(sixteen)
    is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
    if is_number and (text[0] != "0" or text == "0") and int(text) < _SIGN:
        return int(text)
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())


class TradeRow(Struct, frozen=True, gc=False):
    """One trade; `ts_event` in ns, `side` a byte of `engine.data.flags.Side`."""

    trade_id: int
    side: int
    ts_event: int
    price: float
    qty: float


_event_time: Final = attrgetter("ts_event")


class _TradeStream(Feed):
    """Writes trades; subclasses decide which."""

    kind: ClassVar = TRADE

    def _put(self, row: TradeRow, ts_recv: int, more_flags: int = 0) -> None:
        ts_event, ring = row.ts_event, self.ring
        seq = ring.next_seq  # written out, as in `ContiguousTrades.on_trade`
        if seq >= ring.limit_seq and ring.reserve() < 0:
            self.dropped(0, ts_event, 1)  # ids without order: the span of time names the rows
            return
        ring.next_seq = seq + 1
        flags = (self.next_flags and self.settle(ts_recv)) | more_flags
        _PACK_TRADE(
            ring.buffer, HEADER_BYTES + (seq & ring.mask) * _ROW_BYTES, self.slot, flags, row.side,
            ts_event, ts_recv, row.trade_id, row.price, row.qty,
        )  # fmt: skip
        self.row_count += 1


class ContiguousTrades(_TradeStream):
    """Trades whose ids grow by one. A repeated id is dropped, a jump is declared exactly, also one
    over trades that came and could not be read.
    """

    proof: ClassVar = Proof.IDS
    ids_tell: ClassVar = True
    heirlooms: ClassVar = {"_next_id": int}

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._next_id = last.id + 1 if last else _NONE_YET
        self._expected = _LOOK_CLOSER
        """`_next_id`, or a value no id has where the next row must be looked at closely."""
        self._past_recv_ns = 0
        """When the last trade of the past came."""

    @property
    def frame_count(self) -> int:
        """One frame a trade: counting them apart would cost the hot path."""
        return self._frame_count + self.row_count + self.duplicate_count

    def subscribed(self, why: str = "subscribed, waiting for the first data") -> None:
        """A new connection: its first row is looked at closely."""
        super().subscribed(why)
        self._expected = _LOOK_CLOSER

    @property
    def clocks_ns(self) -> int | None:
        """Also None after a trade of the past, whose age is no time on the way."""
        return None if self.last_recv_ns == self._past_recv_ns else super().clocks_ns

    def following(self, frames: Sequence[Frame]) -> Sequence[Frame] | None:
        """All, once the first is the next one or stored."""
        return frames if frames[0][0] <= self._next_id else None

    def on_trade(
        self, trade_id: int, side: int, ts_event: int, ts_recv: int, price: float, qty: float
    ) -> None:
        """Take one trade from the wire, checked by the venue's decoder.

        The common case is written out rather than shared with `_put`: this is the hottest line
        of the system, and a call costs as much as what it would hide.
        """
        self.last_recv_ns = ts_recv
        if trade_id != self._expected and not self._accept_jump(trade_id, ts_event, ts_recv):
            return
        self._expected = self._next_id = trade_id + 1
        self._last_ts = ts_event
        ring = self.ring
        seq = ring.next_seq
        if seq >= ring.limit_seq and ring.reserve() < 0:
            self.dropped(trade_id, ts_event, 1)
            return
        ring.next_seq = seq + 1
        flags = self.next_flags and self.settle(ts_recv)
        _PACK_TRADE(
            ring.buffer, HEADER_BYTES + (seq & ring.mask) * _ROW_BYTES, self.slot, flags, side,
            ts_event, ts_recv, trade_id, price, qty,
        )  # fmt: skip
        self.row_count += 1

    def on_past_trade(
        self, trade_id: int, side: int, ts_event: int, ts_recv: int, price: float, qty: float
    ) -> None:
        """Take one of those that the venue repeats after a subscription, oldest first. What was
        missed meanwhile is stored as BACKFILLED; the newest one that is stored already shows that
        nothing was.
        """
        self._past_recv_ns = ts_recv
        self._expected = _LOOK_CLOSER
        if trade_id == self._next_id - 1 and not self.has_data:
            self.accepted(ts_event)
        self.next_flags |= _BACKFILLED
        self.on_trade(trade_id, side, ts_event, ts_recv, price, qty)
        self.next_flags &= ~_BACKFILLED
        self._expected = _LOOK_CLOSER

    def on_merged_trade(
        self,
        first_id: int,
        last_id: int,
        side: int,
        ts_event: int,
        ts_recv: int,
        price: float,
        qty: float,
    ) -> None:
        """Take one that the venue made of several, with all their ids. It is stored under the last;
        of a gap in front of it ids are counted, for nobody knows how they would have been merged.
        """
        if first_id < last_id and last_id >= self._next_id:
            if first_id <= self._next_id:
                self._next_id = last_id
                self._expected = _LOOK_CLOSER if self._expected < 0 else last_id
            elif self._accept_jump(first_id, ts_event, ts_recv):
                self._expected = last_id
        self.on_trade(last_id, side, ts_event, ts_recv, price, qty)

    def complete_to(self, last_id: int, ts_event: int, ts_recv: int) -> None:
        """The venue said that `last_id` was its last trade, and all up to it should be here: what
        is not is missing, though no later trade tells so yet.
        """
        if self.has_data and last_id >= self._next_id:
            self._accept_jump(last_id + 1, ts_event, ts_recv)
            self._expected = self._next_id = last_id + 1

    def _accept_jump(self, trade_id: int, ts_event: int, ts_recv: int) -> bool:
        """First row on a connection, or an id that does not follow. False: already stored."""
        if self.unreadable.is_open and 0 <= self._next_id < trade_id:
            self._name_unreadable(trade_id, ts_event, ts_recv)
        expected, last_ts = self._next_id, self._last_ts
        if expected < 0:
            pass  # the first row ever
        elif is_renumbered(trade_id, expected - 1, ts_event, last_ts):
            edges = Edges(0, 0, last_ts, ts_event, -1)
            self.declare(GapReason.RENUMBERED, GapState.UNPROVABLE, edges, ts_recv)
        elif trade_id < expected:
            self.duplicate_count += 1
            return False
        elif trade_id > expected:
            from_ts = self.missed_since(last_ts, ts_event)
            edges = Edges(expected, trade_id - 1, from_ts, ts_event, trade_id - expected)
            self.declare(self.blame, GapState.UNRECOVERABLE, edges, ts_recv)
        if not self.has_data:
            self.accepted(ts_event)
        return True

    def on_unreadable(self, item: Unreadable) -> None:
        """Wait for the next trade to tell which id it had. One that is stored is only repeated."""
        if item.rows < 0:
            return  # if it was a trade of this stream, its id will be missing
        if self._is_stored(item, self._next_id - 1):
            self.last_recv_ns = item.ts_recv
            self.duplicate_count += 1
            return
        super().on_unreadable(item)
        self._expected = _LOOK_CLOSER

    def settle(self, now_ns: int) -> int:
        """What could not be read is told before what could, of one message. If its id is still to
        come it waits for that, for the ids would name it once more; the flag comes early then.
        """
        first_seq = self.unreadable.first_seq
        if first_seq is None or first_seq < self._next_id:
            return super().settle(now_ns)
        self._declare_drops(now_ns)
        self._declare_late(now_ns)
        flags, self.next_flags = self.next_flags, 0
        return flags

    def _name_unreadable(self, trade_id: int, ts_event: int, ts_recv: int) -> None:
        """Declare what could not be read in front of `trade_id` under the ids that are missing
        there. Where its own id could not be read it is taken for the first of them: each id is
        named once and the number is right.
        """
        next_id, first_seq = self._next_id, self.unreadable.first_seq
        count = min(self.unreadable.rows, trade_id - next_id)
        is_known = first_seq is not None and next_id <= first_seq <= trade_id - count
        first_id = first_seq if first_seq is not None and is_known else next_id
        rest = self.unreadable.take(ts_event)
        last_ts = self.missed_since(self._last_ts, ts_event)
        if first_id > next_id:
            edges = Edges(next_id, first_id - 1, last_ts, ts_event, first_id - next_id)
            self.declare(self.blame, GapState.UNRECOVERABLE, edges, ts_recv)
        if count:
            edges = Edges(first_id, first_id + count - 1, last_ts, ts_event, count)
            self.declare(GapReason.UNREADABLE, GapState.UNRECOVERABLE, edges, ts_recv)
        if rest.missing > count:  # what has no place in the sequence
            edges = rest._replace(from_seq=0, to_seq=0, missing=rest.missing - count)
            self.declare(GapReason.UNREADABLE, GapState.UNPROVABLE, edges, ts_recv)
        self._next_id = first_id + count


class HistoryTrades(_TradeStream):
    """Trades known by (time, id), with replayed history after each subscribe."""

    proof: ClassVar = Proof.HISTORY
    listens_without_rows: ClassVar = True
    _repeats_past: ClassVar = True
    """Whether the first frame of a connection does so where it does not say."""
    heirlooms: ClassVar = {
        "_last": tuple[int, int] | None, "_recent": list[tuple[int, int]],
    }  # fmt: skip

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._last = (last.ts_event, last.id) if last else None
        self._last_ts = 0
        # A dict as an ordered set: keys leave in the order they came.
        self._recent: dict[tuple[int, int], None] = {}

    def subscribed(self, why: str = "subscribed, waiting for the first data") -> None:
        """The first frame repeats the past, also what could not be read of it."""
        super().subscribed(why)
        self.handed_over(wall_ns())

    def let_go(self) -> None:
        """What is older than any repetition need not travel."""
        super().let_go()
        oldest = self.newest_ts - _REPEATED_NS
        keys = [key for key in self._recent if key[0] >= oldest]
        self._recent = dict.fromkeys(keys or islice(reversed(self._recent), 1))

    @property
    def newest_ts(self) -> int:
        """That of the newest trade."""
        return self._last[0] if self._last else 0

    def following(self, frames: Sequence[Frame]) -> Sequence[Frame] | None:
        """All from the first known trade on: it is in both, and neither has a hole after it. What
        is older than that may be older than what is remembered.
        """
        history, ts_recv = frames[0]
        rows = sorted(history, key=_event_time)
        for start, row in enumerate(rows):
            if (row.ts_event, row.trade_id) in self._recent:
                return [(rows[start:], ts_recv), *frames[1:]]
        return None

    def as_first(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """As one: only in the first frame the rows that are stored are told by the last one."""
        if not frames:
            return frames
        rows = [row for frame in frames for row in frame[0]]
        return [(rows, frames[-1][1], *frames[0][2:])]

    def on_trades(
        self, rows: Sequence[TradeRow], ts_recv: int, is_past: bool | None = None
    ) -> None:
        """Take one frame, checked by the venue's decoder. Rows already stored are dropped. The
        first one of a connection repeats the venue's recent past, if it `is_past`.
        """
        self._frame_count += 1
        self.last_recv_ns = ts_recv
        if len(rows) > 1:
            rows = sorted(rows, key=_event_time)  # a restart goes on from the last one written
        replayed = 0
        if not self.has_data:
            newest_ts = rows[-1].ts_event if rows else ts_recv + self.venue_ahead_ns
            self._last_ts = 0
            if is_past is None:
                is_past = self._repeats_past
            replayed = _BACKFILLED if is_past else 0  # the age of the past is no latency
            rows = self._join(rows, ts_recv)
            self.accepted(rows[0].ts_event if rows else newest_ts)
        recent = self._recent
        for row in rows:
            key = (row.ts_event, row.trade_id)
            if key in recent:
                self.duplicate_count += 1
                continue
            recent[key] = None
            self._last = key
            self._put(row, ts_recv, replayed)
            self._last_ts = 0 if replayed else row.ts_event  # the past tells nothing of clocks
        if len(recent) > 2 * _REMEMBERED_TRADES:
            for key in list(islice(recent, len(recent) - _REMEMBERED_TRADES)):
                del recent[key]

    def _join(self, rows: Sequence[TradeRow], ts_recv: int) -> Sequence[TradeRow]:
        """The first frame of a connection: return the part of it that is new.

        Our last trade inside the frame proves that nothing is missing. Without it, everything
        newer than our last trade is new, and what lies between cannot be known. Trades of its very
        millisecond, in whatever order they come, are told apart by memory; where there is none
        (a restart) they are known: the venue sends what a block traded in one frame.
        """
        if self._last is None or not rows:
            if since := self._last[0] if self._last else self._heard_until:
                until_ts = rows[0].ts_event if rows else ts_recv + self.venue_ahead_ns
                edges = Edges(0, 0, since, until_ts, -1)
                self.declare(self.blame, GapState.UNPROVABLE, edges, ts_recv)
            return rows
        last_ts = self._last[0]
        if is_set_back(rows[-1].ts_event, last_ts):
            edges = Edges(0, 0, rows[0].ts_event, rows[-1].ts_event, -1)
            self.declare(GapReason.RENUMBERED, GapState.UNPROVABLE, edges, ts_recv)
            return rows
        meets = self._meets(rows)
        known = [row for row in rows if self._is_known(row, last_ts)]
        new = [row for row in rows if not self._is_known(row, last_ts)]
        self._recent.update(((row.ts_event, row.trade_id), None) for row in known)
        self.duplicate_count += len(known)
        if meets:
            return new
        until_ts = new[0].ts_event if new else rows[-1].ts_event
        reason = GapReason.HISTORY_SHORT if self.blame is GapReason.SEQUENCE else self.blame
        edges = Edges(0, 0, self.missed_since(last_ts, until_ts), until_ts, -1)
        self.declare(reason, GapState.UNPROVABLE, edges, ts_recv)
        return new

    def _meets(self, rows: Sequence[TradeRow]) -> bool:
        """Whether the first frame reaches back to what is stored."""
        return any((row.ts_event, row.trade_id) == self._last for row in rows)

    def _is_known(self, row: TradeRow, last_ts: int) -> bool:
        """Whether a row of the first frame is stored."""
        return row.ts_event < last_ts or (row.ts_event == last_ts and not self._recent)


class UnorderedTrades(HistoryTrades):
    """Trades known by ids that say nothing of order or number (`wide_id`).

    One that comes twice is dropped, also across connections, as far as ids are remembered. Between
    two connections lies a gap that nobody can measure, unless the next one brings a trade that is
    remembered: both had every trade since that one. `trade_id` of its rows has 128 bits. A venue
    that repeats the recent past after a subscription says so.
    """

    proof: ClassVar = Proof.NOTHING
    _repeats_past: ClassVar = False

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        if last:
            self._last = (last.ts_event, (last.id_hi & _HALF) << 64 | last.id & _HALF)

    def _meets(self, rows: Sequence[TradeRow]) -> bool:
        recent = self._recent or (self._last,)
        return any((row.ts_event, row.trade_id) in recent for row in rows)

    def _is_known(self, row: TradeRow, last_ts: int) -> bool:
        """By its id; after a restart, which forgets ids, by its time."""
        if self._recent:
            return (row.ts_event, row.trade_id) in self._recent
        return row.ts_event <= last_ts

    def _put(self, row: TradeRow, ts_recv: int, more_flags: int = 0) -> None:
        ts_event, ring = row.ts_event, self.ring
        seq = ring.next_seq  # written out, as in `ContiguousTrades.on_trade`
        if seq >= ring.limit_seq and ring.reserve() < 0:
            self.dropped(0, ts_event, 1)
            return
        ring.next_seq = seq + 1
        flags = (self.next_flags and self.settle(ts_recv)) | more_flags
        _PACK_WIDE_TRADE(
            ring.buffer, HEADER_BYTES + (seq & ring.mask) * _ROW_BYTES, self.slot, flags, row.side,
            ts_event, ts_recv, *_SIGNED_HALVES(row.trade_id.to_bytes(16)), row.price, row.qty,
        )  # fmt: skip
        self.row_count += 1
