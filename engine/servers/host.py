"""Keeps a private database open while people read it and no engine runs.

A process of its own, because readers come and go in any order and the server dies with who started
it. It holds the instance's lock, so no engine and no second host can start a server on the same
files, and it makes way for an engine that starts (`engine.process.instance.hold`): what collects
comes first, and a `psql` connects again by itself.

Readers hold `database.users` locked, shared, for as long as they live: the kernel forgets them
however they end. When nobody does the host leaves, unless it was told to stay (`fts db start`).

    python -m engine.servers.host STATE_DIR [stay]

It says `ready`, or what is wrong, on its standard output, and is a daemon from then on.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from engine.base.clock import monotonic_s
from engine.base.errors import EngineError, InstanceBusyError, ServerStartError
from engine.base.masking import MASK
from engine.data.layout import Layout, open_layout
from engine.process import instance
from engine.servers.postgres import PrivatePostgres

_READY = "ready"
_BUSY = "busy"
_LOOK_EVERY_S = 0.25
_POLL_S = 0.05
_STOP_S_MAX = 20.0
_ENGINE_START_S_MAX = 300.0
"""The private database of an engine that starts may have to recover first."""
_ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_ROOT = Path(__file__).parents[2]


def enter(layout: Layout, *, stay: bool = False) -> str:
    """Become a reader of the private database for the rest of this process's life, and of what it
    turns into (`exec`); return the URL. Without an engine a host opens it. Raises ServerStartError.
    """
    fd = os.open(_users_file(layout), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)  # a host that is leaving is waited for
    os.set_inheritable(fd, True)
    ends_s = monotonic_s() + _ENGINE_START_S_MAX
    while True:
        if (engine := instance.read_note(layout)) is not None:
            if not engine.database.startswith("postgresql://") or MASK in engine.database:
                raise ServerStartError(f"the engine that has just started uses {engine.database}")
            return engine.database
        if (host := instance.read_host_note(layout)) is not None and host.url:
            if stay:
                os.kill(host.pid, signal.SIGUSR1)
            return host.url
        if not instance.is_held(layout):
            _start(layout, stay)
        elif monotonic_s() > ends_s:
            raise ServerStartError(f"who holds {layout.lock_file} opens no database")
        time.sleep(_POLL_S)


def dismiss(layout: Layout) -> bool:
    """End the host; False when there is none. Raises ServerStartError when it does not leave."""
    host = instance.read_host_note(layout)
    if host is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(host.pid, signal.SIGTERM)
    ends_s = monotonic_s() + _STOP_S_MAX
    while instance.read_host_note(layout) == host:
        if monotonic_s() > ends_s:
            raise ServerStartError(f"the database's keeper (pid {host.pid}) does not leave")
        time.sleep(_POLL_S)
    return True


def _start(layout: Layout, stay: bool) -> None:
    """Start a host and wait until its database answers, or somebody else's may."""
    arguments = [str(layout.state_dir), *(["stay"] if stay else [])]
    host = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "engine.servers.host", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
        start_new_session=True,
    )
    assert host.stdout is not None
    with host.stdout as pipe:
        said = pipe.readline().decode("utf-8", "replace").strip()
    if said not in (_READY, _BUSY):
        raise ServerStartError(said or "the keeper of the private database ended at once")


def serve(layout: Layout, *, stay: bool) -> None:
    """Open the database and keep it open until nobody reads it, or an engine wants it."""
    server = PrivatePostgres(layout.state_dir, layout.instance)
    instance.write_host_note(layout, instance.HostNote(os.getpid()))
    with _users(layout) as users:  # to the end: who comes while we leave waits for it
        try:
            url = server.start(lambda text: _say(text, sys.stderr))
            signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERS)  # the server has not got this mask
            instance.write_host_note(layout, instance.HostNote(os.getpid(), url))
            _say(_READY)
            _be_a_daemon()
            _wait(server, users, stay)
        finally:
            instance.remove_note(layout)
            server.stop()


def _wait(server: PrivatePostgres, users: int, stay: bool) -> None:
    while server.is_running():
        order = signal.sigtimedwait(_ORDERS, _LOOK_EVERY_S)
        if order is None and (stay or not _is_alone(users)):
            continue
        # Whoever was the last one may have left an order.
        order = order or signal.sigtimedwait(_ORDERS, 0)
        if order is None or order.si_signo not in (signal.SIGUSR1, signal.SIGHUP):
            return
        stay = stay or order.si_signo == signal.SIGUSR1
        fcntl.flock(users, fcntl.LOCK_UN)


def _is_alone(users: int) -> bool:
    """Whether nobody reads; who comes now waits until we have left."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _users(layout: Layout) -> Iterator[int]:
    fd = os.open(_users_file(layout), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _users_file(layout: Layout) -> Path:
    return layout.state_dir / "database.users"


def _say(text: str, to: TextIO = sys.stdout) -> None:
    to.write(f"{text}\n")
    to.flush()


def _be_a_daemon() -> None:
    """Let go of the terminal and of every pipe: who started us may be waited for by others."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def main(arguments: Sequence[str]) -> int:
    """The process."""
    layout = open_layout(Path(arguments[0]))
    try:
        with instance.hold(layout, evicts=False):
            serve(layout, stay="stay" in arguments[1:])
    except InstanceBusyError:
        _say(_BUSY)
    except EngineError as error:
        _say(" ".join(str(error).split()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
