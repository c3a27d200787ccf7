"""WebSocket routes of the simulated Binance USD-M venue."""

import json
from asyncio import WriteTransport
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from aiohttp import WSMsgType, web

from shards.simulator.core.frames import compact
from shards.simulator.core.rest_gate import RestGate
from shards.simulator.core.sessions import Hub, Session

__all__ = ["BinanceStreams", "add_binance_streams"]

_PREFIX = "/binance_linear"
_MESSAGES_PER_S = 10
"""What a client may send on one socket, pings and pongs included; past that the venue hangs up."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BinanceStreams(Protocol):
    """What the WebSocket routes need: a market, or a recorded session."""

    hub: Hub

    def subscribe(self, session: Session, names: list[str]) -> None:
        """Deliver these streams."""

    def unsubscribe(self, session: Session, names: list[str]) -> None:
        """Stop delivering these streams."""


def add_binance_streams(
    app: web.Application, streams: BinanceStreams, gate: RestGate, ping_s: float
) -> None:
    """Serve both categories, each raw and combined, with names in the URL or by message."""

    def serve(group: str, *, combined: bool) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            listed = request.query.get("streams") or request.match_info.get("streams", "")
            names = [name for name in listed.split("/") if name]
            return await _serve_socket(
                request, streams, gate, group, names, combined=combined, ping_s=ping_s
            )

        return handle

    for group in ("public", "market"):
        for path, combined in (("ws", False), ("stream", True)):
            handler = serve(group, combined=combined)
            app.router.add_get(f"{_PREFIX}/{group}/{path}", handler)
            app.router.add_get(f"{_PREFIX}/{group}/{path}/{{streams:.+}}", handler)


async def _serve_socket(
    request: web.Request,
    streams: BinanceStreams,
    gate: RestGate,
    group: str,
    names: list[str],
    *,
    combined: bool,
    ping_s: float,
) -> web.StreamResponse:
    streams.hub.connects.add()
    socket = web.WebSocketResponse(heartbeat=ping_s, compress=False, autoping=False)
    await socket.prepare(request)
    transport = cast("WriteTransport", request.transport)
    session = Session(transport, group, combined=combined)
    streams.hub.sessions.add(session)
    try:
        streams.subscribe(session, names)
        async for message in socket:
            if streams.hub.count_message(session) > _MESSAGES_PER_S and gate.enforced:
                transport.abort()
            elif message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                session.send_text(_answer(streams, session, message.data))
    finally:
        streams.hub.detach(session)
    return socket


def _answer(streams: BinanceStreams, session: Session, text: str | bytes) -> bytes:
    """Carry out one control message. An acknowledgement never proves that data will flow."""
    try:
        request = json.loads(text)
    except ValueError as error:
        return _refusal(3, f"Invalid JSON: {error}", None)
    if not isinstance(request, dict):
        return _refusal(2, "Invalid request: not an object", None)
    number = request.get("id")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        return _refusal(2, "Invalid request: request ID must be an unsigned integer", None)
    method, params = request.get("method"), request.get("params", [])
    if method == "LIST_SUBSCRIPTIONS":
        return compact({"result": list(session.names), "id": number})
    if method == "SET_PROPERTY":
        return _refusal(0, "Unknown property", number)
    if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
        return _refusal(2, f"Invalid request: unknown method {method!r}", number)
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        return _refusal(1, "Invalid value type: expected array of stream names", number)
    # No data can overtake the acknowledgement: nothing else runs until it is written.
    (streams.subscribe if method == "SUBSCRIBE" else streams.unsubscribe)(session, params)
    return compact({"result": None, "id": number})


def _refusal(code: int, message: str, number: object) -> bytes:
    error = {"code": code, "msg": message}
    return compact({"error": error, "id": number} if number is not None else error)
