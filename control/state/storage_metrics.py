"""What the databases take, as metrics from the last status: what is not known has no sample."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from engine.messages.upkeep import DatabaseReport, TableSize

_OF_TABLES: tuple[tuple[str, str, Callable[[TableSize], float | None]], ...] = (
    ("table_bytes", "On disk, with indexes", lambda each: each.size_bytes),
    ("table_rows", "Rows, as the statistics say", lambda each: each.row_count),
    ("row_bytes", "On disk by the row, with indexes", lambda each: each.bytes_a_row),
    ("daily_bytes", "What the newest whole day takes on disk", lambda each: each.bytes_a_day),
    ("daily_rows", "Rows of the newest whole day", lambda each: each.rows_a_day),
    (
        "compression_ratio", "Bytes before compression to those after it, of what is compressed",
        lambda each: each.compression_ratio,
    ),
    (
        "oldest_row_timestamp_seconds", "Time of the oldest row, since 1970",
        lambda each: None if each.oldest_ns is None else each.oldest_ns / 1e9,
    ),
)  # fmt: skip
_OF_DATABASES: tuple[tuple[str, str, Callable[[DatabaseReport], float | None]], ...] = (
    ("disk_free_bytes", "Free on the disk of the database", lambda each: each.disk_free_bytes),
    (
        "until_full_seconds",
        "Until the disk is full at the rate of the newest whole day; ten years is the most",
        lambda each: None if each.days_until_full is None else each.days_until_full * 86_400,
    ),
)  # fmt: skip


def storage_metrics(databases: Sequence[DatabaseReport]) -> Iterator[Metric]:
    """All families of `fts_storage_*`."""
    for noun, text, value_of in _OF_TABLES:
        family = GaugeMetricFamily(f"fts_storage_{noun}", text, labels=["database", "table"])
        for report in databases:
            for table in report.tables:
                if (value := value_of(table)) is not None:
                    family.add_metric([report.database, table.table], value)
        yield family
    for noun, text, look in _OF_DATABASES:
        family = GaugeMetricFamily(f"fts_storage_{noun}", text, labels=["database"])
        for report in databases:
            if (value := look(report)) is not None:
                family.add_metric([report.database], value)
        yield family
