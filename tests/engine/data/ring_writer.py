"""A producer for kill tests: rows whose every field is a function of their sequence."""

import sys
from pathlib import Path
from struct import Struct

from engine.data.kinds import TRADE
from engine.data.ring import RingProducer
from engine.data.segment import attach_segment

_PACK = Struct("=IHBBqqqqdd").pack_into


def main() -> None:
    segment = attach_segment(Path(sys.argv[1]), writable=True)
    segment.lock()
    producer = RingProducer(memoryview(segment.memory), TRADE)
    print("go", flush=True)  # noqa: T201 - the test waits for it
    while True:
        if not producer.has_room():
            continue
        seq = producer.reserve()
        _PACK(
            producer.buffer, producer.offset_of(seq), 1, 0, 66, 0, seq, seq, 0, seq, seq + 0.5, 1.0
        )
        producer.publish()


main()
