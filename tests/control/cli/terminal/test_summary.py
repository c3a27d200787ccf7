"""The last lines of an engine: numbers that add up, and names for what is not stored."""

import pytest

from control.cli.ending import Ending
from control.cli.terminal.summary import engine_summary, engine_text
from engine.data.names import StreamKind
from engine.messages.account import Moves
from engine.messages.status import ChildReport, EngineStatus, WriterReport
from engine.messages.streams import StreamCounts
from engine.messages.writer import SinkStatus


def test_the_summary_says_where_every_received_row_is() -> None:
    counts = {StreamKind.TRADES: StreamCounts(1, 100, gap_count=2, missing_count=7)}
    writer = WriterReport(
        ChildReport("writer", "up"),
        sinks=[
            SinkStatus(
                "database", rows={"trade": 80, "gap": 2}, withheld_rows={"trade": 15},
                missed_rows={"trade": 3}, backlog_rows=2,
            )
        ],
        moves={"trade": Moves(100, 98, 0, 2)},
    )  # fmt: skip
    status = EngineStatus(
        "green", "", "running", "x", 1.0, [], writer, ChildReport("control"), [],
        counts_by_kind=counts,
    )  # fmt: skip
    ending = Ending.of(status, delivered=False)
    summary = engine_summary(status, ending)
    parts = ("stored", "skipped", "lost", "backlog")
    assert summary["received"] == sum(summary[name] for name in parts) == 100
    assert (summary["gaps"], summary["declared_missing"]) == (2, 7), "also of removed streams"
    assert engine_text(status, ending).splitlines()[1] == (
        "received 100 = stored 80 + kept out by knobs 15 + lost after their receipt 3"
        " + waiting in the journal 2; published 0"
    )


@pytest.mark.fault("N03")
def test_what_could_not_be_read_is_counted_by_kind_of_row() -> None:
    """A stream of two kinds of row has lost one of each."""
    counts = {
        StreamKind.TRADES: StreamCounts(refused_count=3),
        StreamKind.FUNDING_OPEN_INTEREST: StreamCounts(refused_count=4),
    }
    writer = WriterReport(ChildReport("writer", "up"))
    status = EngineStatus(
        "green", "", "running", "x", 1.0, [], writer, ChildReport("control"), [],
        counts_by_kind=counts,
    )  # fmt: skip
    summary = engine_summary(status, Ending.of(status, delivered=True))
    assert summary["refused"] == 7
    refused = {kind: each["refused"] for kind, each in summary["by_kind"].items()}
    assert refused == {"trade": 3, "book": 0, "funding": 2, "open_interest": 2}
