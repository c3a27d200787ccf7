"""What a command of the lake has done: a line each on stderr, and the sum of it."""

import json
import sys
from typing import TYPE_CHECKING, Any

from control.cli.exits import Exit
from control.cli.terminal.standard_streams import say
from engine.base.clock import monotonic_s

if TYPE_CHECKING:  # needs pyarrow
    from engine.upkeep.lake.manifest import Group


class Tally:
    """What was done, told as it is done and at the end."""

    def __init__(self, is_json: bool) -> None:
        self._is_json = is_json
        self._began_s = self._last_s = monotonic_s()
        self._groups: list[dict[str, Any]] = []

    def add(self, group: "Group", outcome: str, rows: int) -> None:
        """One group is done; so many rows were looked at, or stored."""
        now_s = monotonic_s()
        took_s, self._last_s = now_s - self._last_s, now_s
        self._groups.append(
            {
                "kind": group.kind, "venue": group.venue, "date": f"{group.date}",
                "outcome": outcome, "rows": rows, "bytes": group.bytes,
                "day_is_over": group.day_is_over,
            }
        )  # fmt: skip
        size = f"{group.bytes / 1e6:,.1f} MB"
        note = "" if group.day_is_over else "; the day is not over"
        sys.stderr.write(f"{group.name}: {outcome}, {rows:,} rows, {size}, {took_s:.1f} s{note}\n")

    def end(self, did: str, *, is_wrong: bool = False, **more: Any) -> int:
        """The last line, or the one JSON object, with `more` in it. Returns the exit code."""
        rows = sum(each["rows"] for each in self._groups)
        took_s = monotonic_s() - self._began_s
        if self._is_json:
            say(json.dumps({"groups": self._groups, "rows": rows, "took_s": took_s, **more}))
        else:
            wrong = f", {len(more['wrong'])} files wrong" if more.get("wrong") else ""
            say(f"{did}: {len(self._groups)} groups, {rows:,} rows in {took_s:.1f} s{wrong}")
        return Exit.FAILED if is_wrong else Exit.OK
