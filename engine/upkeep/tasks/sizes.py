"""Sizes: what the tables take, what they grow by, and when the disk is full."""

from typing import ClassVar

from engine.database.condition.extent import OldestKnown, read_extent
from engine.upkeep.task import Place


class Sizes:
    """Looks, and changes nothing. It is short, so it goes on while the writer is behind."""

    name: ClassVar[str] = "sizes"
    every_s: ClassVar[float] = 60.0

    def __init__(self) -> None:
        self._known: OldestKnown = {}

    def run(self, place: Place) -> str:
        """Put what is found into the report."""
        extent = read_extent(
            place.session, place.seen, place.settings.keep, place.now_ns(), self._known
        )
        report = place.report
        report.tables, report.disk_free_bytes = extent.tables, extent.disk_free_bytes
        report.days_until_full = extent.days_until_full
        return ""
