"""What the fork server does, and what becomes of its copies.

Everything here runs in a process that was forked: it returns to nobody, and ends by `os._exit`, so
that nothing which belongs to the process it was copied from is undone twice.
"""

import contextlib
import gc
import importlib
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from setproctitle import setproctitle

from engine.base import handles, signals
from engine.process import birth
from engine.process.release import release

_MOST_FDS: Final = 32
_MOST_BYTES: Final = 4096


class Order(msgspec.Struct):
    """Of a child."""

    name: str
    target: str
    """`module:function`."""
    fds: list[int]
    """Numbers for the descriptors that come with it; the first is its pipe."""


def serve(link: socket.socket, supervisor: int, modules: Sequence[str]) -> NoReturn:
    """Import, then answer orders with process ids until the supervisor is gone."""
    try:
        signals.death_with_parent(signal.SIGKILL)()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signals.hold_back()
        handles.raise_limit()  # as the supervisor will; copies have the limits of this process
        os.setpgid(0, 0)
        _read_nothing()
        _close_all_but(link.fileno())
        setproctitle(f"{sys.executable} -P -m engine.process.forks")
        _prepare(modules)
        while True:
            wish, fds, _, _ = socket.recv_fds(link, _MOST_BYTES, _MOST_FDS)
            if not wish:
                os._exit(0)
            pid = _bear(msgspec.json.decode(wish, type=Order), fds, link, supervisor)
            link.send(b"%d" % pid)
            for fd in fds:
                os.close(fd)
    except BaseException:  # noqa: BLE001 - whatever it is, it must not unwind another's stack
        traceback.print_exc()
    finally:
        os._exit(1)


def _prepare(modules: Sequence[str]) -> None:
    """Have in memory what children need. What is there by then lives for ever: a collector that
    looked at it would write to it, and it would be shared no more. What copies say that they run is
    this code, whatever is on disk when they are born.
    """
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    release()
    gc.collect()
    gc.freeze()


def _bear(order: Order, fds: Sequence[int], link: socket.socket, supervisor: int) -> int:
    """A child whose parent is the supervisor by now. Returns its process id."""
    reads, writes = os.pipe()
    between = os.fork()
    if not between:
        try:
            pid = os.fork()
            if pid:
                os.write(writes, b"%d" % pid)
                os._exit(0)
            os.close(reads)
            os.close(writes)
            link.close()
            _live(order, fds, supervisor)
        except BaseException:  # noqa: BLE001 - as above
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writes)
    os.waitpid(between, 0)
    with os.fdopen(reads, "rb") as said:
        return int(said.read())


def _live(order: Order, fds: Sequence[int], supervisor: int) -> NoReturn:
    """Be a child like one that was started by itself."""
    between = os.getppid()
    _place(fds, order.fds)
    os.setpgid(0, 0)
    while (parent := os.getppid()) == between != supervisor:
        os.sched_yield()  # it ends at once
    if parent != supervisor:
        os._exit(birth.ExitCode.NOT_BORN)
    arguments = [order.name, order.target, str(order.fds[0])]
    setproctitle(" ".join([sys.executable, "-P", "-m", "engine.process.birth", *arguments]))
    gc.enable()
    code = birth.main(arguments)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _place(fds: Sequence[int], numbers: Sequence[int]) -> None:
    """Have the descriptors under their numbers, whichever they have now."""
    beyond = max([*fds, *numbers]) + 1
    lifted = [os.dup2(fd, beyond + place, inheritable=False) for place, fd in enumerate(fds)]
    for fd in fds:
        os.close(fd)
    for fd, number in zip(lifted, numbers, strict=True):
        os.dup2(fd, number, inheritable=False)
        os.close(fd)


def _read_nothing() -> None:
    """Standard input is the supervisor's."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _close_all_but(kept: int) -> None:
    """What the supervisor had open is none of ours: a lock or a pipe would outlive it here."""
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd != kept:
            with contextlib.suppress(OSError):  # the listing itself had one open
                os.close(fd)
