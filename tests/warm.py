"""`fts` in a process of its own that does not import anew what every command needs.

For each command there is a process that has imported what `fts` imports for it, and no more; it is
forked for each call. The copy has the arguments, the environment, the folder and the pipes that a
process started by itself would have, and ends like one. What happens before or while modules are
imported is not for here.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_PATIENCE_S: Final = 60.0
_MOST_BYTES: Final = 1 << 17


class _Original:
    """A process that is copied, and the link to it."""

    def __init__(self, command: str) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.settimeout(_PATIENCE_S)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.warm", str(theirs.fileno()), command],
                env={**os.environ, "PYTHONPATH": str(_ROOT)}, stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def run(self, wish: Sequence[object], fds: Sequence[int]) -> None:
        """Have a copy run with these as its three standard streams."""
        socket.send_fds(self._link, [json.dumps(wish).encode()], fds)

    def exit_code(self) -> int:
        """Of the copy."""
        return int(self._link.recv(64))

    def close(self) -> None:
        """It ends with the link."""
        self._link.close()
        self._process.wait(_PATIENCE_S)


_originals: dict[str, _Original] = {}
"""By command."""


def close() -> None:
    """End those that were needed."""
    while _originals:
        _originals.popitem()[1].close()


def run(
    arguments: Sequence[str], environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run `fts` to its end, with nothing on its standard input."""
    if _of_the_interpreter(environment) != _of_the_interpreter(os.environ):
        return subprocess.run(
            [sys.executable, "-P", "-m", "control.cli.main", *arguments], env=environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_S,
            check=False,
        )  # fmt: skip
    command = arguments[0]
    if command not in _originals:
        _originals[command] = _Original(command)
    original = _originals[command]
    inputs, out, err = os.open(os.devnull, os.O_RDONLY), os.pipe(), os.pipe()
    given = (inputs, out[1], err[1])
    original.run([["fts", *arguments], dict(environment), str(Path.cwd())], given)
    for fd in given:
        os.close(fd)
    with ThreadPoolExecutor(2) as readers:
        said = [reading.result() for reading in [readers.submit(_read, fd[0]) for fd in (out, err)]]
    return subprocess.CompletedProcess(["fts", *arguments], original.exit_code(), *said)


def _of_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    """What it reads when it starts, but for where modules are."""
    names = [name for name in environment if name.startswith(("PYTHON", "LC_", "LANG"))]
    return {name: environment[name] for name in names if name != "PYTHONPATH"}


def _read(fd: int) -> str:
    with open(fd, encoding="utf-8") as stream:
        return stream.read()


def _serve(link: socket.socket) -> None:
    """Be copied until the link ends. Returns in a copy, and only there."""
    while True:
        wish, fds, _, _ = socket.recv_fds(link, _MOST_BYTES, 3)
        if not wish:
            os._exit(0)
        pid = os.fork()
        if not pid:
            link.close()
            arguments, environment, folder = json.loads(wish)
            _become(arguments, environment, folder, fds)
            return
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        link.send(b"%d" % os.waitstatus_to_exitcode(status))


def _become(
    arguments: list[str], environment: dict[str, str], folder: str, fds: Sequence[int]
) -> None:
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv[:] = arguments


if __name__ == "__main__":
    from control.cli.main import COMMANDS, main, parser

    _, number, wanted = sys.argv
    if wanted in COMMANDS:
        parser(wanted)
    _serve(socket.socket(fileno=int(number)))
    sys.exit(main())
