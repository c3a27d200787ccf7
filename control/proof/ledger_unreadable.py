"""Compares what the simulator sent unreadably with the gaps that declare it.

Of such an element nothing is stored, so its stream must have declared it: it lies inside one of the
stream's gaps, and those of reason `unreadable` count neither fewer rows than were sent nor more.
Where the elements went to nobody whole (a socket was cut under them) other gaps may name them.
"""

from collections.abc import Mapping

from control.proof.ledger_sources import LedgerSource, by_source
from control.proof.ledger_topics import WantedTopics
from control.proof.verdict import Connection, Verdict, covered_by_gaps
from engine.data.flags import GapReason
from engine.data.names import CARRIES, StreamKind, Transport
from shards.simulator.core.ledger import UNREADABLE_KINDS, LedgerRows, Rows

__all__ = ["check_unreadable"]

_STREAMS = """
    SELECT i.venue, i.symbol, s.kind, s.transport, array_agg(s.stream_id)
    FROM stream s JOIN instrument i USING (instrument_id) GROUP BY 1, 2, 3, 4
"""
_COUNTED = """
    SELECT coalesce(sum(missing), 0) FROM gap
    WHERE stream_id = ANY(%s) AND reason = %s AND missing > 0
"""


def check_unreadable(ledger: LedgerRows, connection: Connection) -> Mapping[str, Verdict]:
    """The verdict on all of them; none where there were none."""
    if not len(ledger.unreadable):
        return {}
    streams: dict[tuple[LedgerSource, str], list[int]] = {}
    for venue, symbol, stream_kind, transport, ids in connection.execute(_STREAMS):
        for kind in CARRIES[StreamKind(stream_kind)]:
            streams[LedgerSource(venue, symbol, Transport(transport)), kind] = ids
    total, wanted = Verdict(), WantedTopics(connection)
    for number, kind in enumerate(UNREADABLE_KINDS):
        of_kind = ledger.unreadable[ledger.unreadable["kind"] == number]
        for source, part in by_source(ledger, of_kind):
            if wanted.has_not(kind, source):
                continue
            total.add(_judge(part, streams.get((source, kind)), connection))
    return {"unreadable": total}


def _judge(part: Rows, stream_ids: list[int] | None, connection: Connection) -> Verdict:
    sent = int(part["rows"].sum())
    if stream_ids is None:  # nobody collects it
        is_polled = bool(part["rest"][0])
        return Verdict() if is_polled else Verdict(sent=sent, missing=sent)
    covered = covered_by_gaps(connection, stream_ids, part["seq"], part["ts_event"])
    declared = int(part["rows"][covered].sum())
    query = connection.execute(_COUNTED, (stream_ids, int(GapReason.UNREADABLE))).fetchone()
    assert query is not None
    return Verdict(
        sent=sent,
        declared_missing=declared,
        missing=sent - declared,
        altered=max(0, int(query[0]) - sent),
    )
