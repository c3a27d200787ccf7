"""HTTP and WebSocket routes of simulated venues: the same for all, by what their encoders say."""

import json
from asyncio import WriteTransport
from functools import partial
from typing import Any, cast

from aiohttp import WSMsgType, web

from shards.simulator.core.encoder import Encoder, ServedCall, SocketPath, Streams
from shards.simulator.core.limits import RestGate
from shards.simulator.core.sessions import Session
from shards.simulator.core.venue import SimVenue

__all__ = ["add_rest", "add_sockets", "rest_answer"]


def add_rest(app: web.Application, venue: SimVenue) -> None:
    """Serve the venue's REST calls, each charged with its weight before it is answered."""
    for path, call in venue.encoder.rest.items():
        handler = partial(_ask, venue, call)
        app.router.add_route(call.method, f"/{venue.encoder.name}/{path}", handler)


async def _ask(venue: SimVenue, call: ServedCall, request: web.Request) -> web.StreamResponse:
    said = request.query if call.method == "GET" else await _body(request)
    query = {**said, **request.match_info}
    weight, gate = call.weigh(query), venue.gate
    refusal = gate.admit_funding() if weight is None else gate.admit(weight)
    if refusal is not None:
        return refusal
    answer = call.answer(venue, query)
    gate.weight.add(answer.extra_weight)
    return rest_answer(gate, answer.body, answer.status, answer.content_type)


def rest_answer(
    gate: RestGate, body: bytes, status: int = 200, content_type: str = "application/json"
) -> web.Response:
    """Answer a call, with what has been used of the limit."""
    headers = gate.headers()
    return web.Response(body=body, status=status, content_type=content_type, headers=headers)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        query = json.loads(await request.read())
    except ValueError:
        return {}
    return query if isinstance(query, dict) else {}


def add_sockets(app: web.Application, encoder: Encoder, venue: Streams, ping_s: float) -> None:
    """Serve the venue's sockets; where it has streams in the address, these are subscribed."""
    for path in encoder.sockets:
        handler = partial(_serve_socket, encoder, venue, path, ping_s)
        app.router.add_get(f"/{encoder.name}/{path.path}", handler)


async def _serve_socket(
    encoder: Encoder, venue: Streams, path: SocketPath, ping_s: float,
    request: web.Request,
) -> web.StreamResponse:  # fmt: skip
    hub, gate = venue.hub, venue.gate
    if hub.connects.add() > encoder.connects_per_minute and gate.enforced:
        return web.Response(status=429, text="Too many connections")
    heartbeat = min(ping_s, encoder.ping_s) if encoder.pings else None
    socket = web.WebSocketResponse(
        heartbeat=heartbeat, compress=False, autoping=not encoder.pings
    )  # fmt: skip
    await socket.prepare(request)
    transport = cast("WriteTransport", request.transport)
    session = Session(transport, path.group, combined=path.combined, counter=encoder.counter)
    hub.sessions.add(session)
    try:
        listed = request.query.get("streams") or request.match_info.get("streams", "")
        venue.subscribe(session, [name for name in listed.split("/") if name])
        async for message in socket:
            if hub.count_message(session) > encoder.messages_per_s and gate.enforced:
                transport.abort()
            elif message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                # A recorded session takes only what its venue's encoder asks of it.
                encoder.hear(cast("SimVenue", venue), session, message.data)
    finally:
        hub.detach(session)
    return socket
