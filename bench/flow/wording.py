"""What a whole run says for eyes."""

from collections.abc import Mapping
from typing import Any

from control.proof.verdict import Verdict


def equation_line(found: Verdict) -> str:
    """Where every row is."""
    word = "PROVEN" if found.is_equal and found.sent else "FAILED"
    return (
        f"{word}: sent {found.sent:,} = stored {found.stored:,} + declared missing"
        f" {found.declared_missing:,}; duplicates {found.duplicates:,}, missing {found.missing:,},"
        f" altered {found.altered:,}"
    )


def cpu_line(per_row_us: Mapping[str, float]) -> str:
    """CPU time a row: ours, the servers', and the simulators', who are no part of it."""
    ours = {role: us for role, us in per_row_us.items() if role != "simulator"}
    parts = ", ".join(f"{role} {us:.2f}" for role, us in ours.items())
    apart = per_row_us.get("simulator", 0.0)
    return f"CPU us a row: {parts}; together {sum(ours.values()):.2f}, simulator {apart:.2f}"


def latency_lines(by_share: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of percentiles, in ms."""
    lines = [f"{'ms after it was due':<42}{'p50':>10}{'p90':>10}{'p99':>10}{'p99.9':>10}"]
    for share, found in by_share.items():
        for stage, percentiles in found["stages"].items():
            place = f"{share:>5} {found['rows_per_s']:>10,.0f}/s {stage}"
            lines.append(f"{place:<42}" + "".join(f"{ms:>10,.2f}" for ms in percentiles.values()))
    return lines
