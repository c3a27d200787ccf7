"""Compares what the simulator sent unreadably with the gaps that declare it.

Of such an element nothing is stored, so its stream must have declared it: it lies inside one of the
stream's gaps, and those of reason `unreadable` count neither fewer rows than were sent nor more.
Where the elements went to nobody whole (a socket was cut under them) other gaps may name them.
"""

from collections import defaultdict
from typing import NamedTuple

from control.proof.ledger_sources import BySource, LedgerSource, by_source
from control.proof.ledger_topics import WantedTopics
from control.proof.verdict import Connection, Verdict, covered_by_gaps
from engine.data.flags import GapReason
from engine.data.names import CARRIES, TELLS_THE_PAST, StreamKind, Transport
from shards.feeds.declared.coverage import LATE_NS
from shards.simulator.core.ledger import UNREADABLE_KINDS, LedgerRows, Rows
from shards.venues import VENUES

__all__ = ["check_unreadable"]

_STREAMS = """
    SELECT i.venue, i.symbol, s.kind, s.transport, array_agg(s.stream_id)
    FROM stream s JOIN instrument i USING (instrument_id) GROUP BY 1, 2, 3, 4
"""
_COUNTED = """
    SELECT coalesce(sum(missing), 0) FROM gap
    WHERE stream_id = ANY(%s) AND reason = %s AND missing > 0
"""


class _Streams(NamedTuple):
    """The streams of one instrument and kind of row, and how late their rows may be stamped."""

    ids: list[int]
    late_ns: int


def check_unreadable(ledger: LedgerRows, connection: Connection) -> dict[str, BySource]:
    """The verdict on all of them, stream by stream; none where there were none. What tells the past
    is never spoiled, and shares the instrument and the transport with what is.
    """
    if not len(ledger.unreadable):
        return {}
    streams: dict[tuple[LedgerSource, str], _Streams] = {}
    for venue, symbol, stream_kind, transport, ids in connection.execute(_STREAMS):
        channel = VENUES[venue].channels[StreamKind(stream_kind), Transport(transport)]
        late_ns = 0 if channel.has_venue_time else LATE_NS
        for kind in () if stream_kind in TELLS_THE_PAST else CARRIES[StreamKind(stream_kind)]:
            source = LedgerSource(venue, symbol, Transport(transport))
            streams[source, kind] = _Streams(ids, late_ns)
    found, wanted = defaultdict[LedgerSource, Verdict](Verdict), WantedTopics(connection)
    for number, kind in enumerate(UNREADABLE_KINDS):
        of_kind = ledger.unreadable[ledger.unreadable["kind"] == number]
        for source, part in by_source(ledger, of_kind):
            if wanted.has_not(kind, source):
                continue
            found[source].add(_judge(part, streams.get((source, kind)), connection))
    return {"unreadable": dict(found)}


def _judge(part: Rows, streams: _Streams | None, connection: Connection) -> Verdict:
    sent = int(part["rows"].sum())
    if streams is None:  # nobody collects it
        is_polled = bool(part["rest"][0])
        return Verdict() if is_polled else Verdict(sent=sent, missing=sent)
    stream_ids, late_ns = streams
    covered = covered_by_gaps(connection, stream_ids, part["seq"], part["ts_event"], late_ns)
    declared = int(part["rows"][covered].sum())
    query = connection.execute(_COUNTED, (stream_ids, int(GapReason.UNREADABLE))).fetchone()
    assert query is not None
    return Verdict(
        sent=sent,
        declared_missing=declared,
        missing=sent - declared,
        altered=max(0, int(query[0]) - sent),
    )
