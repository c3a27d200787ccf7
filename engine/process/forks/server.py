"""The process that children are copies of, as the supervisor has it.

    supervisor ──fork──▶ fork server ──fork──▶ (nobody) ──fork──▶ child
        ▲                 imports, then                              │
        └────────────── waits for requests         adopted: its parent is the supervisor

Invariants
- Its parent is the supervisor, as of a child that is started by itself: the one between them ends
  at once, and the kernel gives a child without a parent to the nearest ancestor that asks for it.
- It is copied before there are threads, event loops, locks or objects that own a file: what files a
  program before this one has left it closes, by their numbers.
- Who cannot have a copy starts a process: nothing depends on the fork server but speed.
- It has the code of the supervisor. Who wants another one closes it.
"""

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from engine.base import signals
from engine.process.forks.place import Order, serve

_log = logging.getLogger(__name__)

_ANSWER_S: Final = 30.0
"""It may be importing, on a machine that is busy."""


class ForkServer:
    """Ask it for a copy; close it when another code is wanted."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self.pid = pid
        self._link = link
        self.is_open = True

    @classmethod
    def begin(cls, modules: Sequence[str]) -> "ForkServer":
        """Copy this process, which must have one thread and no event loop; the copy imports the
        modules.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what waits in them would be said by each copy
        gc.freeze()  # neither side's collector writes to what both share
        pid = os.fork()
        if not pid:
            serve(theirs, supervisor, modules)
        theirs.close()
        ours.settimeout(_ANSWER_S)
        return cls(pid, ours)

    def fork(self, name: str, target: str, fds: Sequence[int]) -> int | None:
        """A copy that runs `target` with these descriptors under the same numbers, the first of
        them its pipe; its process id, or None where there is none to be had. It is a child of ours.
        """
        if not self.is_open:
            return None
        order = msgspec.json.encode(Order(name, target, list(fds)))
        try:
            with signals.adopting_orphans():
                socket.send_fds(self._link, [order], list(fds))
                answer = self._link.recv(64)
            if answer:
                return int(answer)
            reason = "it has ended"
        except OSError as error:
            reason = str(error)
        _log.warning(f"children are started one by one from now on: the fork server: {reason}")
        self.close()
        return None

    def close(self) -> None:
        """Have it end, and wait until it has."""
        if not self.is_open:
            return
        self.is_open = False
        self._link.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
