"""A reader of one stream in Redis, as anybody may write one: XREAD, JSON, the times in it.

    .venv/bin/python -m bench.flow.subscriber REDIS_URL KEY

Says `ready`, reads until its standard input ends, and says how old the events were, in ms after the
time of the venue's event.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import redis

from bench.flow.percentiles import percentiles_ms
from engine.base.clock import wall_ns


class Timed(msgspec.Struct):
    """What is wanted of an event."""

    time: int
    recv: int


def main(arguments: Sequence[str]) -> None:
    """Read until nobody wants to know any more."""
    url, key = arguments
    client = redis.Redis.from_url(url)
    decode, ages, from_ring, over = msgspec.json.Decoder(list[Timed]).decode, [], [], []
    Thread(target=lambda: over.append(sys.stdin.read()), daemon=True).start()
    newest: Any = client.xrevrange(key, count=1)
    last: Any = newest[0][0] if newest else "0"
    print("ready", flush=True)
    while not over:
        answer: Any = client.xread({key: last}, count=1000, block=50)
        now_ns = wall_ns()
        for _, entries in answer:
            for last, fields in entries:  # noqa: B007 - where to go on
                events = decode(fields[b"events"])
                ages.append(now_ns - np.array([event.time for event in events], np.int64))
                from_ring.append(now_ns - np.array([event.recv for event in events], np.int64))
    stages = {"redis": percentiles_ms(ages), "ring to redis": percentiles_ms(from_ring)}
    print(json.dumps({"rows": sum(map(len, ages)), "stages": stages}))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(sys.argv[1:])
