"""How far one sink has got in one source."""

from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """A cursor (sequence of the next row), and what is known of the way to it."""

    seq: int
    durable_seq: int
    """What is before it the sink has for good."""
    counted_seq: int
    """Of a sink that may miss rows: what is before it is counted, as taken, missed or withheld."""
    is_known: bool = False
    """Of such a sink: whether it has said how far it got."""
    last_recv_ns: int = 0
    """`ts_recv` of the last row it took; 0 while unknown."""
    begun_seq: int | None = None
    """Where the cursor was when we found it first, less what the sink has lost since."""
    found_rows: int = 0
    """Rows that had passed the cursor without our hearing of it."""

    def advance(self, seq: int, *, durable: bool) -> None:
        """Note what the sink has. One that was set back has lost what was durable."""
        if self.begun_seq is None:
            self.begun_seq = seq
        else:
            self.begun_seq -= max(self.seq - seq, 0)
            self.found_rows += max(seq - self.seq, 0)
        self.seq = seq
        self.durable_seq = seq if durable else min(self.durable_seq, seq)
