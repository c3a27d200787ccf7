"""Metrics of single streams, for who asks: their labels are symbols, so their number is that of the
streams, and no scrape of everything has them.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from engine.messages.status import StreamReport
from engine.messages.streams import StreamState

_LABELS = ["exchange", "symbol", "kind", "transport"]
_TOTALS: tuple[tuple[str, str, Callable[[StreamReport], int]], ...] = (
    ("frames", "Frames received", lambda each: each.frame_count),
    ("rows", "Rows received", lambda each: each.row_count),
    ("gaps", "Gaps declared", lambda each: each.gap_count),
    ("missing_rows", "Rows declared missing", lambda each: each.missing_count),
    ("duplicate_rows", "Rows refused as repeated", lambda each: each.duplicate_count),
    ("refused_rows", "Rows refused as unreadable", lambda each: each.refused_count),
)


class StreamMetrics:
    """The `top` streams by rows; a `Collector` in the library's words."""

    def __init__(self, streams: Iterable[StreamReport], top: int) -> None:
        self._streams = heapq.nlargest(top, streams, key=lambda each: each.row_count)

    def collect(self) -> Iterator[Metric]:
        """All families."""
        live = GaugeMetricFamily("fts_stream_live", "1 while it delivers", labels=_LABELS)
        newest = GaugeMetricFamily(
            "fts_stream_last_frame_timestamp_seconds",
            "When it was heard last, since 1970",
            labels=_LABELS,
        )
        for each in self._streams:
            live.add_metric(_labels(each), float(each.state is StreamState.LIVE))
            if each.last_recv_ns:
                newest.add_metric(_labels(each), each.last_recv_ns / 1e9)
        yield live
        yield newest
        for noun, text, count_of in _TOTALS:
            family = CounterMetricFamily(f"fts_stream_{noun}_total", text, labels=_LABELS)
            for each in self._streams:
                family.add_metric(_labels(each), count_of(each))
            yield family


def _labels(stream: StreamReport) -> list[str]:
    return [stream.venue, stream.symbol, stream.kind, stream.transport]
