"""What a derivative has beside trades and book: funding, predicted and paid, open interest,
liquidations.
"""

from itertools import islice
from typing import Any, ClassVar, Final, NamedTuple, Self

from engine.base.clock import monotonic_s, wall_ns
from engine.data.flags import Flag, GapState
from engine.data.kinds import FUNDING, LIQUIDATION, OPEN_INTEREST
from engine.data.positions import Position
from engine.data.ring import RingProducer
from engine.messages.streams import StreamSpec, StreamState
from shards.feeds.context import FeedContext
from shards.feeds.declared.coverage import BEGINS_AFTER_NS, LATE_NS
from shards.feeds.declared.gaps import Edges, GapLedger
from shards.feeds.declared.unreadable import Unreadable
from shards.feeds.feed import Feed, Frame, Proof
from shards.feeds.unnumbered import UnnumberedFeed

_PACK_FUNDING: Final = FUNDING.packer()
_PACK_OPEN_INTEREST: Final = OPEN_INTEREST.packer()
_PACK_LIQUIDATION: Final = LIQUIDATION.packer()
_NO_RATE: Final = int(Flag.NO_RATE)
_INEXACT: Final = int(Flag.INEXACT)
_SETTLED: Final = int(Flag.SETTLED)
_BACKFILLED: Final = int(Flag.BACKFILLED)
_DAY_NS: Final = 86_400_000_000_000
_REMEMBERED_LIQUIDATIONS: Final = 1024
_SETTLED_S: Final = 5.0
"""After so long on a socket a subscription counts as heard, though nothing has come."""


class FundingRow(NamedTuple):
    """`rate` is None for a contract without funding; 0 is what the row does not tell. `is_exact` is
    whether each number is the one the venue wrote.
    """

    rate: float | None
    mark_price: float
    index_price: float
    next_ts: int = 0
    interval_s: int = 0
    is_exact: bool = True


class _FundingStream(UnnumberedFeed):
    kind: ClassVar = FUNDING

    def _store_funding(
        self, ring: RingProducer, ts_event: int, ts_recv: int, row: FundingRow
    ) -> None:
        rate, mark, index, next_ts, interval_s, is_exact = row
        if rate is None:
            rate = 0.0
            interval_s = 0
            self.next_flags |= _NO_RATE
        if not is_exact:
            self.next_flags |= _INEXACT
        self._store(
            ring, _PACK_FUNDING, ts_event, ts_recv,
            ts_event, ts_recv, rate, mark, index, next_ts, interval_s,
        )  # fmt: skip
        self.next_flags &= ~(_NO_RATE | _INEXACT)


class FundingRates(_FundingStream):
    """Funding rate, mark and index price."""

    heirlooms: ClassVar = {"_content": FundingRow | None, "interval_s": int}

    interval_s = 0
    """What the venue said apart from the rows (`shards.session.funding_intervals`); 0 is
    unknown."""

    def on_funding(self, ts_event: int, ts_recv: int, row: FundingRow) -> None:
        """Take one state, checked by the venue's decoder."""
        if self._accept(ts_event, ts_recv, row):
            if not row.interval_s:
                row = row._replace(interval_s=self.interval_s)
            self._store_funding(self.ring, ts_event, ts_recv, row)


class Payment(NamedTuple):
    """One payment of funding; `ts_event` in ns, `sort` the venue's word for what it is, for two may
    be of one moment.
    """

    ts_event: int
    sort: str
    rate: float
    mark_price: float
    is_exact: bool = True


class SettledFunding(_FundingStream):
    """Payments in the order of their time, each once, from the venue's history.

    The venue is asked for what was paid since the newest payment that is stored, that one included.
    Nothing is missed while nobody asks, for the next answer reaches back as far as it must: neither
    a silence nor a time without an engine makes a gap. A stream begins with those of the last day.
    """

    proof: ClassVar = Proof.HISTORY
    silence_is_loss: ClassVar = False
    listens_without_rows: ClassVar = True
    heirlooms: ClassVar = {
        "_began_ns": int, "_refused": set[int], "_newest": set[str] | None,
    }  # fmt: skip

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._began_ns = wall_ns()
        self._refused: set[int] = set()
        self._refused_before: set[int] = set()
        """Marks of what could not be read of this answer, and of the one before."""
        self._newest: set[str] | None = None
        """The sorts of those of the newest moment; None after a restart, which knows the moment
        alone: all of it was stored, for an answer is published whole."""

    def subscribed(self, why: str = "subscribed, waiting for the first data") -> None:
        """What was paid before is told from memory."""
        super().subscribed(why)
        self._began_ns = wall_ns()

    @property
    def since_ms(self) -> int:
        """That of the newest payment; before there was one, that up to which it was heard."""
        since_ns = self._last_ts or self._heard_until or self._began_ns - _DAY_NS
        return since_ns // 1_000_000

    def on_payment(self, payment: Payment, ts_recv: int) -> None:
        """Take one, checked by the venue's decoder; those of an answer come oldest first."""
        self.last_recv_ns = ts_recv
        if not self._is_new(payment):
            self.duplicate_count += 1
            return
        ts_event, _, rate, mark_price, is_exact = payment
        is_past = ts_event < self._began_ns
        self.next_flags |= _SETTLED | _BACKFILLED * is_past
        row = FundingRow(rate, mark_price, 0.0, is_exact=is_exact)
        self._store_funding(self.ring, ts_event, ts_recv, row)
        self.next_flags &= ~(_SETTLED | _BACKFILLED)

    def _is_new(self, payment: Payment) -> bool:
        """Whether it is not stored; if so, it is the newest from now on."""
        if payment.ts_event < self._last_ts:
            return False
        if payment.ts_event > self._last_ts:
            self._last_ts, self._newest = payment.ts_event, set()
        if self._newest is None or payment.sort in self._newest:
            return False
        self._newest.add(payment.sort)
        return True

    def answered(self, ts_recv: int) -> None:
        """The venue has told all that was paid since, which may be nothing."""
        self._frame_count += 1
        self.last_recv_ns = ts_recv
        self._refused, self._refused_before = set(), self._refused
        if self.state is not StreamState.LIVE or not self.has_data:
            since_ns = self._heard_until or self._began_ns - _DAY_NS
            self.accepted(since_ns - BEGINS_AFTER_NS)

    def on_unreadable(self, item: Unreadable) -> None:
        """What is asked for again comes again in the next answer, and is declared once."""
        self._refused.add(item.mark)
        if item.mark in self._refused_before:
            self.last_recv_ns = item.ts_recv
            self.duplicate_count += item.rows
            return
        super().on_unreadable(item)

    def poll_missed(self) -> None:
        """Nothing is missed: the next answer reaches back."""

    def heard_until(self, silent_s: float) -> int:
        """Up to the last answer."""
        return max(self.last_recv_ns - LATE_NS, self.newest_ts)


class _OpenInterestStream(UnnumberedFeed):
    kind: ClassVar = OPEN_INTEREST

    def _store_open_interest(
        self, ring: RingProducer, ts_event: int, ts_recv: int, qty: float, *, is_exact: bool
    ) -> None:
        if not is_exact:
            self.next_flags |= _INEXACT
        self._store(ring, _PACK_OPEN_INTEREST, ts_event, ts_recv, ts_event, ts_recv, qty)
        self.next_flags &= ~_INEXACT


class OpenInterestPoints(_OpenInterestStream):
    """Open interest."""

    heirlooms: ClassVar = {"_content": float | None}

    def on_open_interest(
        self, ts_event: int, ts_recv: int, qty: float, is_exact: bool = True
    ) -> None:
        """Take one state, checked by the venue's decoder; `is_exact` as in FundingRow."""
        if self._accept(ts_event, ts_recv, qty):
            self._store_open_interest(self.ring, ts_event, ts_recv, qty, is_exact=is_exact)


class FundingOpenInterest(_FundingStream, _OpenInterestStream):
    """Both in one message of the venue: a row of each kind, with the same times."""

    _rows_per_element: ClassVar = 2
    heirlooms: ClassVar = {"_content": tuple[FundingRow, float] | None}

    def __init__(
        self,
        spec: StreamSpec,
        ring: RingProducer,
        gaps: GapLedger,
        last: Position | None,
        open_interest_ring: RingProducer,
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._open_interest_ring = open_interest_ring

    @classmethod
    def make(cls, context: FeedContext) -> Self:
        """With its second ring."""
        ring = context.rings[OPEN_INTEREST.name]
        return cls(*context.parts(FUNDING), ring)

    def _content_of(self, frame: Frame) -> Any:
        return frame[2:4]

    def on_both(
        self, ts_event: int, ts_recv: int, row: FundingRow, qty: float, is_exact: bool = True
    ) -> None:
        """Take one state, checked by the venue's decoder; `is_exact` is about `qty`."""
        if not self._accept(ts_event, ts_recv, (row, qty)):
            return
        after_gap = self.next_flags
        self._store_funding(self.ring, ts_event, ts_recv, row)
        self.next_flags |= after_gap
        ring = self._open_interest_ring
        self._store_open_interest(ring, ts_event, ts_recv, qty, is_exact=is_exact)


class LiquidationRow(NamedTuple):
    """One liquidation order; the first five fields are its natural key. `ts_event` in ns;
    `is_exact` is about the average price, which the venue computes.
    """

    ts_event: int
    side: int
    price: float
    qty: float
    filled_qty: float
    avg_price: float
    is_exact: bool = True


class Liquidations(UnnumberedFeed):
    """Liquidation orders. There may be none for hours, so silence is no sign of anything: the
    stream is live once it has been subscribed for a while, and the time nobody listened is declared
    then and not when a next one happens to come.
    """

    in_any_order: ClassVar = True
    listens_without_rows: ClassVar = True
    kind: ClassVar = LIQUIDATION
    heirlooms: ClassVar = {"_began_ts": int, "_recent": list[tuple[int | float, ...]]}

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        # A dict as an ordered set: keys leave in the order they came.
        self._recent: dict[tuple[int | float, ...], None] = {}

    def heard_until(self, silent_s: float) -> int:
        """There may be none for hours: it is heard as long as its socket is."""
        return Feed.heard_until(self, silent_s)

    @property
    def _is_own_clock(self) -> bool:
        return True  # as far as listening is concerned

    def _begins_anew(self, now_ns: int) -> int:
        """Its rows have the venue's times, which were not set: not before it was heard."""
        return max(now_ns + self.venue_ahead_ns, self.newest_ts, self._began_ts)

    def tick(self, now_ns: int) -> None:
        """Go live without a row."""
        super().tick(now_ns)
        settled = monotonic_s() - self.subscribed_s > _SETTLED_S
        if self.state is StreamState.SYNCING and settled:
            self._heard(now_ns + self.venue_ahead_ns, now_ns)

    def on_liquidation(self, row: LiquidationRow, ts_recv: int, number: int | None = None) -> None:
        """Take one order, checked by the venue's decoder; with a `number` two that say the same are
        two, unless it is the same.
        """
        self._frame_count += 1
        self.last_recv_ns = ts_recv
        if self.state is not StreamState.LIVE:
            self._heard(max(ts_recv + self.venue_ahead_ns, row.ts_event), ts_recv)
        recent = self._recent
        key = row[:5] if number is None else (number, *row[:5])
        if key in recent:
            self.duplicate_count += 1
            return
        recent[key] = None
        if len(recent) > 2 * _REMEMBERED_LIQUIDATIONS:
            for old in list(islice(recent, len(recent) - _REMEMBERED_LIQUIDATIONS)):
                del recent[old]
        ts_event, side, price, qty, filled_qty, avg_price, is_exact = row
        self._last_ts = ts_event
        if not is_exact:
            self.next_flags |= _INEXACT
        self._store(
            self.ring, _PACK_LIQUIDATION, ts_event, ts_recv,
            side, ts_event, ts_recv, price, avg_price, qty, filled_qty,
        )  # fmt: skip
        self.next_flags &= ~_INEXACT

    def _heard(self, at: int, now_ns: int) -> None:
        """The subscription works: what was said before `at` (venue time) was not heard."""
        since = self.missed_since(self._last_ts, at)
        if 0 < since < at and not self.is_heard:  # else another socket listened all the time
            edges = Edges(0, 0, since, at, -1)
            self.declare(self.blame, GapState.UNPROVABLE, edges, now_ns)
        self.accepted(at)
