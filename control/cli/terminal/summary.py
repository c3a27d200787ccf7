"""What an engine did, in numbers: for `--json` and for the last lines in a terminal.

Rows are accounted for in `control.cli.ending`; the rest of the numbers is here.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from control.cli.ending import Ending
from engine.data.kinds import NOT_MARKET_DATA
from engine.messages.status import EngineStatus
from engine.messages.streams import StreamCounts
from engine.messages.writer import LIVE


def engine_summary(status: EngineStatus, ending: Ending) -> dict[str, Any]:
    """Totals since the engine started, of market data: what is said about rows is no row."""
    writer = status.writer
    counted = StreamCounts.total(status.counts_by_kind.values())
    received, stored = status.rows_by_kind(), _without_gaps(writer.database_rows())
    refused = status.refused_by_kind()
    published, dropped = map(_without_gaps, (writer.live_rows(), writer.dropped_rows))
    skipped = _without_gaps(writer.database_rows("withheld_rows"))
    by_kind = {
        "received": received,
        "stored": stored,
        "skipped": skipped,
        "published": published,
        "dropped": dropped,
        "refused": refused,
    }
    seconds = max(status.uptime_s, 1e-9)
    return {
        "uptime_s": status.uptime_s,
        "received": sum(received.values()),
        "stored": sum(stored.values()),
        "skipped": sum(skipped.values()),
        "lost": writer.database_rows("missed_rows").total(),
        "published": sum(published.values()),
        "dropped": sum(dropped.values()),
        "declared_missing": counted.missing_count,
        "gaps": counted.gap_count,
        "duplicates_refused": counted.duplicate_count,
        "refused": counted.refused_count,
        "quarantined": writer.database_rows("refused_rows").total(),
        "inexact": sum(each.inexact_rows for each in writer.databases),
        "overrun": writer.live_rows("missed_rows").total(),
        "backlog": max(each.backlog_rows for each in writer.databases),
        "malformed": _malformed(status),
        "restarts": sum(each.restart_count for each in (*status.children, *status.servers)),
        "rates": {
            "received_rows_per_s": round(sum(received.values()) / seconds),
            "stored_rows_per_s": round(sum(stored.values()) / seconds),
        },
        "by_kind": {
            kind: {name: rows.get(kind, 0) for name, rows in by_kind.items()}
            for kind in ("trade", "book", *sorted(received.keys() - {"trade", "book"}))
        },
        "equation": ending.summary(),
        "latency_us": writer.latency_us,
        "cpu_s": {
            **{shard.child.name: round(shard.cpu_s, 2) for shard in status.shards},
            "writer": round(writer.cpu_s, 2),
        },
    }  # fmt: skip


def engine_text(status: EngineStatus, ending: Ending) -> str:
    """The same for eyes."""
    summary = engine_summary(status, ending)
    lines = [
        f"ran {status.uptime_s:,.1f} s with {len(status.streams)} streams",
        f"{received_text(summary, ending)}; published {summary['published']:,}",
        f"gaps {summary['gaps']:,} (missing rows {summary['declared_missing']:,}),"
        f" dropped {summary['dropped']:,}, quarantined {summary['quarantined']:,},"
        f" malformed frames {sum(summary['malformed'].values()):,}",
    ]
    return "\n".join([*lines, *latency_lines(status), *ending.lines()])


def received_text(summary: Mapping[str, Any], ending: Ending) -> str:
    """What came, and what became of it where that was counted."""
    return ending.equation() if ending.accounts else f"received {summary['received']:,}"


_STAGES = {
    "receipt": "venue's event to shard",
    "journal": "shard to journal",
    "database": "shard to committed row",
    **{each.name: f"shard to {each.title}" for each in LIVE},
}


def latency_lines(status: EngineStatus) -> list[str]:
    """One line a stage."""
    return [
        f"{_STAGES.get(stage, stage)}: "
        + ", ".join(f"{name} {value / 1e3:,.1f} ms" for name, value in figures.items())
        for stage, figures in status.writer.latency_us.items()
        if figures
    ]


def _without_gaps(rows: Mapping[str, int]) -> dict[str, int]:
    return {kind: count for kind, count in rows.items() if kind not in NOT_MARKET_DATA}


def _malformed(status: EngineStatus) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for shard in status.shards:
        totals.update(shard.malformed_by_reason)
    return totals
