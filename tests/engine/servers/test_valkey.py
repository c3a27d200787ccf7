"""The private Valkey: a socket, a bound on memory, nothing on disk."""

import os
import signal
from pathlib import Path

import pytest

from engine.servers.valkey import PrivateValkey
from tests.stores import ask
from tests.waiting import wait_for

pytestmark = pytest.mark.whole


def test_it_is_bounded_and_saves_nothing(valkey: PrivateValkey) -> None:
    names = ("maxmemory", "maxmemory-policy", "save", "appendonly", "port")
    answers = ask(valkey.start(), *(("CONFIG", "GET", name) for name in names))
    values = [answer[1] for answer in answers]
    assert values == [b"268435456", b"noeviction", b"", b"no", b"0"]


def test_a_restart_empties_it(valkey: PrivateValkey) -> None:
    ask(valkey.start(), ("SET", "a", "1"))
    assert ask(valkey.restart(), ("EXISTS", "a")) == [0]


def test_a_killed_server_is_noticed_and_starts_again(valkey: PrivateValkey) -> None:
    valkey.start()
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGKILL)
    wait_for(lambda: not valkey.is_running())
    assert ask(valkey.start(), ("PING",)) == [b"PONG"]


def test_a_survivor_is_ended_first(valkey: PrivateValkey, server_dir: Path) -> None:
    url = valkey.start()
    ask(url, ("SET", "a", "1"))
    second = PrivateValkey(server_dir, "test")
    assert second.start() == url
    assert ask(url, ("EXISTS", "a")) == [0]
    assert not valkey.is_running()
    second.stop()
    valkey.stop()
    valkey.start()
