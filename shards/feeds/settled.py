"""Funding that was paid, asked of the venue's history again and again.

The venue is asked for what was paid since the newest payment that is stored, that one included.
Nothing is missed while nobody asks, for the next answer reaches back as far as it must: neither a
silence nor a time without an engine makes a gap. A stream begins with the payments of the last day.
"""

from typing import ClassVar, Final, NamedTuple

from engine.base.clock import wall_ns
from engine.data.flags import Flag
from engine.data.positions import Position
from engine.data.ring import RingProducer
from engine.messages.streams import StreamSpec, StreamState
from shards.feeds.contracts import FundingRow, FundingStream
from shards.feeds.declared.coverage import BEGINS_AFTER_NS, LATE_NS
from shards.feeds.declared.gaps import GapLedger
from shards.feeds.declared.unreadable import Unreadable

_SETTLED: Final = int(Flag.SETTLED)
_BACKFILLED: Final = int(Flag.BACKFILLED)
_FIRST_NS: Final = 86_400_000_000_000


class Payment(NamedTuple):
    """One payment of funding; `ts_event` in ns, `sort` the venue's word for what it is, for two may
    be of one moment.
    """

    ts_event: int
    sort: str
    rate: float
    mark_price: float
    is_exact: bool = True


class SettledFunding(FundingStream):
    """Payments in the order of their time, each once."""

    silence_is_loss: ClassVar = False
    listens_without_rows: ClassVar = True

    def __init__(
        self, spec: StreamSpec, ring: RingProducer, gaps: GapLedger, last: Position | None
    ) -> None:
        super().__init__(spec, ring, gaps, last)
        self._began_ns = wall_ns()
        self._refused: set[int] = set()
        self._refused_before: set[int] = set()
        """Marks of what could not be read of this answer, and of the one before."""
        self._newest: set[Payment] | None = None
        """Those of the newest moment; None after a restart, which knows the moment alone: all of it
        was stored, for an answer is published whole."""

    def subscribed(self, why: str = "subscribed, waiting for the first data") -> None:
        """What was paid before is told from memory."""
        super().subscribed(why)
        self._began_ns = wall_ns()

    @property
    def since_ms(self) -> int:
        """That of the newest payment; before there was one, that up to which it was heard."""
        since_ns = self._last_ts or self._heard_until or self._began_ns - _FIRST_NS
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
        if self._newest is None or payment in self._newest:
            return False
        self._newest.add(payment)
        return True

    def answered(self, ts_recv: int) -> None:
        """The venue has told all that was paid since, which may be nothing."""
        self._frame_count += 1
        self.last_recv_ns = ts_recv
        self._refused, self._refused_before = set(), self._refused
        if self.state is not StreamState.LIVE or not self.has_data:
            since_ns = self._heard_until or self._began_ns - _FIRST_NS
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
