"""Sockets for the feed tests: a listener, and a viewer that speaks HTTP by hand."""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any


class Viewer:
    """One client of a feed. Reads only when asked to."""

    def __init__(self, port: int, path: str, *, receive_buffer: int = 0, headers: str = "") -> None:
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(10)
        self.sock.connect(("127.0.0.1", port))
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        self._file = self.sock.makefile("rb")

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers

    def body(self, length: int) -> bytes:
        """A body of known length."""
        return self._file.read(length)

    def events(self) -> Iterator[tuple[str, Any]]:
        """Events, undoing chunked encoding. Ends where the server ends."""
        pending = b""
        while size := int(self._file.readline() or b"0", 16):
            pending += self._file.read(size)
            self._file.readline()
            *blocks, pending = pending.split(b"\n\n")
            for block in blocks:
                lines = dict(line.split(": ", 1) for line in block.decode().split("\n"))
                if "event" in lines:
                    yield lines["event"], json.loads(lines["data"])

    def next_event(self, name: str, until: Callable[[Any], bool] = lambda _: True) -> Any:
        """The next event of that name that fulfils the condition."""
        for event, body in self.events():
            if event == name and until(body):
                return body
        raise AssertionError(f"the feed ended before {name}")

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.sock.close()

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
