"""HTTP and WebSocket routes of simulated venues: the same for all, by what their encoders say."""

import json
from asyncio import WriteTransport
from functools import partial
from typing import Any, cast

from aiohttp import WSMsgType, web

from shards.simulator.core.encoder import Asked, Encoder, ServedCall, SocketPath, Streams
from shards.simulator.core.limits import CONNECTS, MESSAGES, SOCKETS, RestGate, Then, VenueLimit
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
    gate = venue.gate
    refusal = gate.admit(call.weigh(query), call.pool)
    if refusal is not None:
        return refusal
    answer = call.answer(venue, query)
    gate.charge(answer.extra_weight)
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
    hub, limits = venue.hub, venue.gate.limits
    hub.connects.add()
    if limits.spend(CONNECTS) or limits.hold(SOCKETS, 1):
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
            hub.count_message(session)
            if over := limits.spend(MESSAGES, 1, session):
                _exceeded(encoder, session, over)
            elif message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                hear(venue, session, message.data)
    finally:
        hub.detach(session)
    return socket


def hear(streams: Streams, session: Session, text: str | bytes) -> None:
    """Carry out and answer what a client says, within the venue's limits."""
    # A recorded session takes only what its venue's encoder asks of it.
    encoder, venue = streams.encoder, cast("SimVenue", streams)
    if encoder.greeting and not session.is_greeted:
        session.is_greeted = True
        session.send_text(encoder.greeting)
    request = encoder.read(venue, session, text)
    if request is None:
        return
    if over := streams.gate.limits.ask(session, request.topics, begins=request.begins):
        _exceeded(encoder, session, over, request)
        return
    for part in request.parts():
        topics = encoder.answer(venue, session, part)
        if not part.begins:
            streams.unsubscribe(session, topics)
            continue
        for topic in topics:
            encoder.begin(venue, session, topic, part)
            streams.subscribe(session, [topic])


def _exceeded(
    encoder: Encoder, session: Session, limit: VenueLimit, request: Asked | None = None
) -> None:
    """Do to a client what the venue does."""
    if words := encoder.over(session, limit, request):
        session.send_text(words)
    if limit.then is Then.HANG_UP:
        (session.transport.close if words else session.transport.abort)()
