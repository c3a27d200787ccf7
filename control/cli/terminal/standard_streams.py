"""Standard input, output and error as a process may find them: closed, deaf, of another alphabet.

What is said there is a courtesy. Nothing that an engine does may depend on somebody listening.
"""

import contextlib
import errno
import os
import sys
from typing import Final

from engine.base.errors import EngineError


class OutputError(EngineError):
    """What was asked for could not be written."""


_NOBODY_READS: Final = frozenset({errno.EPIPE, errno.EIO})
"""The pipe's reader has gone; the terminal was hung up."""


def prepare() -> None:
    """Have all three. A closed one (`>&-`) becomes /dev/null: otherwise the next file or socket
    that is opened would get its number, and what is written to the log with it.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
            os.set_inheritable(opened, True)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a test's own stream has only one alphabet
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def say(text: str) -> None:
    """Write whole lines to standard output. If nobody reads them any more, nobody misses them.

    Raises OutputError where they were to be kept and could not be (a full disk).
    """
    try:
        sys.stdout.write(text.rstrip("\n") + "\n")
    except OSError as error:
        _fail(error)
    flush()


def flush() -> None:
    """See to it that what was written has arrived. Raises OutputError, as `say` does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _fail(error)


def _fail(error: OSError) -> None:
    give_up_stdout()
    if error.errno not in _NOBODY_READS:
        raise OutputError(f"standard output: {error.strerror}") from error


def give_up_stdout() -> None:
    """Have the interpreter not complain at its end of what it could not write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
