"""What an engine did, in numbers: for `--json` and for the last lines in a terminal."""

from typing import Any

from engine.status import EngineStatus


def engine_summary(status: EngineStatus) -> dict[str, Any]:
    """Totals since the engine started. Row counts of the writer include gap records."""
    writer = status.writer
    seconds = max(status.uptime_s, 1e-9)
    return {
        "uptime_s": status.uptime_s,
        "received": sum(status.rows_by_kind().values()),
        "stored": sum(writer.stored_rows.values()),
        "published": sum(writer.published_rows.values()),
        "dropped": sum(writer.dropped_rows.values()),
        "declared_missing": sum(stream.missing_count for stream in status.streams),
        "gaps": sum(stream.gap_count for stream in status.streams),
        "duplicates_refused": sum(stream.duplicate_count for stream in status.streams),
        "quarantined": sum(writer.quarantined_rows.values()),
        "inexact": writer.inexact_rows,
        "overrun": sum(writer.overrun_rows.values()),
        "backlog": writer.backlog_rows,
        "malformed": _malformed(status),
        "restarts": sum(
            child.restart_count
            for child in (
                *(shard.child for shard in status.shards), writer.child, status.control,
                *status.servers,
            )
        ),
        "rates": {
            "received_rows_per_s": round(sum(status.rows_by_kind().values()) / seconds),
            "stored_rows_per_s": round(sum(writer.stored_rows.values()) / seconds),
        },
        "by_kind": {
            kind: {
                "received": status.rows_by_kind().get(kind, 0),
                "stored": writer.stored_rows.get(kind, 0),
                "published": writer.published_rows.get(kind, 0),
                "dropped": writer.dropped_rows.get(kind, 0),
            }
            for kind in ("trade", "book", *sorted(status.rows_by_kind().keys() - {"trade", "book"}))
        },
        "latency_us": writer.latency_us,
        "cpu_s": {
            **{shard.child.name: round(shard.cpu_s, 2) for shard in status.shards},
            "writer": round(writer.cpu_s, 2),
        },
    }  # fmt: skip


def engine_text(status: EngineStatus) -> str:
    """The same for eyes."""
    summary = engine_summary(status)
    lines = [
        f"ran {status.uptime_s:,.1f} s with {len(status.streams)} streams",
        f"received {summary['received']:,} rows, stored {summary['stored']:,},"
        f" published {summary['published']:,}",
        f"gaps {summary['gaps']:,} (missing rows {summary['declared_missing']:,}),"
        f" dropped {summary['dropped']:,}, quarantined {summary['quarantined']:,},"
        f" malformed frames {sum(summary['malformed'].values()):,}",
    ]
    if summary["backlog"]:
        lines.append(f"{summary['backlog']:,} rows wait in the journal for the next start")
    lines += latency_lines(status)
    return "\n".join(lines)


_STAGES = {
    "receipt": "venue's event to shard",
    "journal": "shard to journal",
    "database": "shard to committed row",
    "redis": "shard to Redis",
}


def latency_lines(status: EngineStatus) -> list[str]:
    """One line a stage."""
    return [
        f"{_STAGES.get(stage, stage)}: "
        + ", ".join(f"{name} {value / 1e3:,.1f} ms" for name, value in figures.items())
        for stage, figures in status.writer.latency_us.items()
        if figures
    ]


def _malformed(status: EngineStatus) -> dict[str, int]:
    totals: dict[str, int] = {}
    for shard in status.shards:
        for reason, count in shard.malformed_by_reason.items():
            totals[reason] = totals.get(reason, 0) + count
    return totals
