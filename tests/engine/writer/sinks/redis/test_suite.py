"""Redis keeps what is asked of every sink."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from engine.data.layout import Layout
from engine.data.slots import Slots
from engine.servers.valkey import PrivateValkey
from engine.writer.sinks.redis.sink import RedisSink
from engine.writer.sinks.sink import Promise, Sink
from tests.engine.writer.conftest import STREAM_COUNT, MakeSettings
from tests.engine.writer.sinks.suite import SinkRig, SinkSuite


class ServerRig(SinkRig):
    """A server that can refuse to be written to, and be set back."""

    def __init__(self, client: Redis, url: str, layout: Layout, make: MakeSettings) -> None:
        self._client, self._url, self._layout, self._make_settings = client, url, layout, make
        self._saved: dict[bytes, Any] = {}

    def make(self) -> Sink:
        return RedisSink(self._make_settings(redis_url=self._url), Slots(self._layout.slots))

    def ids(self) -> list[int]:
        ids: list[int] = []
        for number in range(STREAM_COUNT):
            entries: Any = self._client.xrange(f"fts:trades:acme:S{number}")
            ids += [each["id"] for _, entry in entries for each in json.loads(entry[b"events"])]
        return sorted(ids)

    def go_away(self) -> None:
        self._client.replicaof("127.0.0.1", "1")

    def come_back(self) -> None:
        self._client.replicaof("NO", "ONE")

    def save(self) -> None:
        keys: Any = self._client.keys("*")
        self._saved = {key: self._client.dump(key) for key in keys}

    def restore(self) -> None:
        self._client.flushall()
        for key, content in self._saved.items():
            self._client.restore(key, 0, content)


@pytest.fixture
def rig(
    redis_url: str, valkey: PrivateValkey, layout: Layout, slots: Slots,
    make_settings: MakeSettings,
) -> Iterator[ServerRig]:  # fmt: skip
    """The place to bring rows to."""
    del slots
    client = Redis.from_url(redis_url)
    yield ServerRig(client, redis_url, layout, make_settings)
    client.close()
    valkey.restart()


class TestRedis(SinkSuite):
    """All of it but what concerns rows that are not in the rings any more."""

    promise = Promise.LIVE
