"""HTTP connections with deadlines and caps. uvicorn has neither: a silent client would stay open
for ever, and a few hundred of those would lock everybody else out.

    opened -> [headers_s] -> request complete -> [body_s] -> body complete -> answer -> keep-alive

A client that does not read its answer is dropped after `write_s`. Every client address has a share
of the connections.
"""

import asyncio
from collections import Counter
from typing import Any, ClassVar

import h11
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from control.http.errors import ErrorBody


class Limits(msgspec.Struct, frozen=True):
    """What one client may cost."""

    headers_s: float = 5.0
    body_s: float = 10.0
    write_s: float = 10.0
    connections: int = 512
    connections_per_client: int = 192
    header_bytes: int = 16_384

    def behind_proxy(self) -> "Limits":
        """The same where all clients come from the proxy's address, which shares out itself."""
        return msgspec.structs.replace(self, connections_per_client=self.connections)


class BoundedHttp(H11Protocol):
    """One connection."""

    limits = Limits()
    _open: ClassVar[Counter[str]] = Counter()
    """Connections by client address."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._timer: asyncio.TimerHandle | None = None
        self._timed_state: object = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._counted = ""

    @classmethod
    def within(cls, limits: Limits) -> "type[BoundedHttp]":
        """The protocol with these limits and a count of its own."""
        return type("BoundedHttp", (cls,), {"limits": limits, "_open": Counter()})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected: the clock runs."""
        super().connection_made(transport)
        self._counted = self.client[0] if self.client else "?"
        self._open[self._counted] += 1
        limits = self.limits
        if (
            self._open[self._counted] > limits.connections_per_client
            or self._open.total() > limits.connections
        ):
            self._refuse(429, "too many connections", "too_many_requests", retry_after_s=1)
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
        self._open[self._counted] -= 1
        if not self._open[self._counted]:
            del self._open[self._counted]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came. They do not stop the clock: only a complete request does."""
        if self.transport.is_closing():
            return
        try:
            super().data_received(data)
        except h11.LocalProtocolError:
            # An error in pipelined bytes while an answer is under way cannot be answered.
            self.transport.abort()
            return
        self._watch()

    def on_response_complete(self) -> None:
        """The answer is out; the next request, if any, has a clock of its own."""
        self._timed_state = None
        super().on_response_complete()
        if not self.transport.is_closing():
            self._watch(idle=not self.conn.trailing_data[0])

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read on."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no HTTP. Answered in JSON like everything else, where it still can be."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        too_long = self.conn.trailing_data[0] and len(self.conn.trailing_data[0]) > (
            self.limits.header_bytes
        )
        if too_long:
            self._refuse(431, "the header is too large", "header_too_large")
        else:
            self._refuse(400, "this is not an HTTP request", "invalid_argument")

    def _watch(self, *, idle: bool = False) -> None:
        """Run the clock that fits what we wait for; a state that lasts keeps its clock."""
        state = self.conn.their_state
        if state is h11.IDLE and not idle:
            deadline_s = self.limits.headers_s
        elif state is h11.SEND_BODY:
            deadline_s = self.limits.body_s
        else:
            self._stop_timer()
            return
        if state is self._timed_state and self._timer is not None:
            return
        self._stop_timer()
        self._timed_state = state
        self._timer = self.loop.call_later(deadline_s, self._on_deadline)

    def _stop_timer(self) -> None:
        self._timed_state = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_deadline(self) -> None:
        """Too slow. Once an answer has begun, another one would only confuse."""
        self._timer = None
        if self.transport.is_closing() or (self._timed_state is h11.SEND_BODY and self._answered):
            self.transport.abort()
        else:
            self._refuse(408, "the request took too long to arrive", "too_slow")

    @property
    def _answered(self) -> bool:
        return self.cycle is not None and self.cycle.response_started

    def _refuse(self, status: int, text: str, kind: str, *, retry_after_s: int = 0) -> None:
        """Answer outside of the state machine, and close."""
        body = msgspec.json.encode(ErrorBody(text, kind, retry_after_s=retry_after_s))
        wait = f"Retry-After: {retry_after_s}\r\n" if retry_after_s else ""
        head = (
            f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n{wait}"
            "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
