"""The private Valkey: a socket, a bound on memory, nothing on disk."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from engine.base.redis_link import Command, RedisLink, parse_redis_url
from engine.servers.valkey import PrivateValkey
from tests.waiting import wait_for

pytestmark = pytest.mark.whole


def _ask(url: str, *commands: Command) -> list[Any]:
    async def ask() -> list[Any]:
        link = await RedisLink.open(parse_redis_url(url), "test", 2.0)
        try:
            return await link.call(commands, 2.0)
        finally:
            await link.wait_closed()

    return asyncio.run(ask())


def test_it_is_bounded_and_saves_nothing(valkey: PrivateValkey) -> None:
    names = ("maxmemory", "maxmemory-policy", "save", "appendonly", "port")
    answers = _ask(valkey.start(), *(("CONFIG", "GET", name) for name in names))
    values = [answer[1] for answer in answers]
    assert values == [b"268435456", b"noeviction", b"", b"no", b"0"]


def test_a_restart_empties_it(valkey: PrivateValkey) -> None:
    _ask(valkey.start(), ("SET", "a", "1"))
    assert _ask(valkey.restart(), ("EXISTS", "a")) == [0]


def test_a_killed_server_is_noticed_and_starts_again(valkey: PrivateValkey) -> None:
    valkey.start()
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGKILL)
    wait_for(lambda: not valkey.is_running())
    assert _ask(valkey.start(), ("PING",)) == [b"PONG"]


def test_a_survivor_is_ended_first(valkey: PrivateValkey, server_dir: Path) -> None:
    url = valkey.start()
    _ask(url, ("SET", "a", "1"))
    second = PrivateValkey(server_dir, "test")
    assert second.start() == url
    assert _ask(url, ("EXISTS", "a")) == [0]
    assert not valkey.is_running()
    second.stop()
    valkey.stop()
    valkey.start()
