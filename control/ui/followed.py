"""One stream's rows of one record kind, followed across restarts and moves to another shard."""

from collections.abc import Iterator
from typing import Any, Final

from control.state.backend import Backend
from control.state.ring_follower import RingFollower
from engine.data.kind import Kind, RecordArray
from engine.data.layout import Layout, shard_name
from engine.data.names import CARRIES, StreamKind
from engine.messages.status import StreamReport

_POLLS_A_TICK: Final = 4


class Followed:
    """A stream, and the ring its rows come from as long as there is one."""

    def __init__(self, layout: Layout, kind: Kind, history_rows: int) -> None:
        self._history_rows = history_rows
        self.follower = RingFollower(layout, kind)
        self.report: StreamReport | None = None
        self._process = ""

    def look(self, report: StreamReport | None) -> bool:
        """See where the stream is now. Returns whether a ring was newly attached."""
        before, self.report = self.report, report
        if report is None:
            self.follower.detach("not collected")
            return False
        if report.shard < 0:
            self.follower.detach("accepted, not placed on a shard yet")
            return False
        process = report.process or shard_name(report.shard)
        moved = before is None or (self._process, before.slot) != (process, report.slot)
        if self.follower.is_attached and not moved and not self.follower.is_replaced:
            return False
        self._process = process
        return self.follower.attach(process, self._history_rows)

    def poll(self) -> Iterator[RecordArray]:
        """New rows of the stream."""
        if self.report is None:
            return iter(())
        return self.follower.poll(self.report.slot, _POLLS_A_TICK)

    def describe(self) -> dict[str, Any] | None:
        """For the page; None when the stream is not collected."""
        report = self.report
        if report is None:
            return None
        return {
            "venue": report.venue,
            "symbol": report.symbol,
            "kind": report.kind,
            "transport": report.transport,
            "slot": report.slot,
            "state": report.state.value,
            "reason": report.reason or self.follower.problem,
            "attached": self.follower.is_attached,
            "epoch": str(self.follower.epoch),
        }

    def close(self) -> None:
        """Let go of the ring."""
        self.follower.detach("closed")


def streams_of(state: Backend, venue: str, symbol: str) -> list[StreamReport]:
    """The symbol's streams in the last status."""
    streams = state.status.streams if state.status else ()
    return [each for each in streams if each.symbol == symbol and each.venue == venue]


def carrying(reports: list[StreamReport], kind: Kind) -> list[StreamReport]:
    """Those that produce rows of this kind: funding comes in up to three kinds of stream."""
    return [each for each in reports if kind.name in CARRIES[StreamKind(each.kind)]]
