"""`/livez`, `/readyz`, `/startupz`: for what restarts, routes to and waits for this engine.

They need no token and tell no detail: 200, or 503 with one word. Each is answered from what is in
memory. The database is in none of them: while it is slow or away rows wait in the journal, and no
restart would help. `/health/...` is where it shows.
"""

from typing import Literal, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from control.api.routes import Operation, Services
from control.http.errors import json_response
from control.state.health import SILENT_AFTER_S
from engine.messages.status import EngineStatus
from engine.messages.streams import StreamState

LIVE_SILENCE_S = 15.0
"""A supervisor says something twice a second. One that is silent for so long stands still."""

Reason = Literal["", "supervisor", "starting", "draining", "writer", "shard", "journal", "streams"]


class Probe(msgspec.Struct, frozen=True):
    """`reason` is empty when it is ok, else one word: `supervisor` (it is silent), `starting`,
    `draining`, `writer` or `shard` (it is not up), `journal` (it takes no rows while the database
    takes none either), `streams` (some are wanted, and none delivers).
    """

    ok: bool
    reason: Reason = ""


async def live(_: Request, services: Services) -> Response:
    """Whether a restart would be of no help: this process answers and the supervisor is heard."""
    silent = services.backend.health.silence_s > LIVE_SILENCE_S
    return _answer("supervisor" if silent else "")


async def started(_: Request, services: Services) -> Response:
    """Whether the engine has been up once; later troubles do not count."""
    status = services.backend.status
    return _answer("starting" if status is None or status.phase == "starting" else "")


async def ready(_: Request, services: Services) -> Response:
    """Whether it does its work: writer and shards are up, and rows come in and are kept."""
    silent = services.backend.health.silence_s > SILENT_AFTER_S
    return _answer("supervisor" if silent else _unready(services.backend.status))


def _unready(status: EngineStatus | None) -> Reason:
    if status is None or status.phase == "starting":
        return "starting"
    if status.phase != "running":
        return "draining"
    writer = status.writer
    if writer.child.state != "up":
        return "writer"
    if any(shard.child.state != "up" for shard in status.shards):
        return "shard"
    is_stored = all(each.state in ("up", "off") and not each.waits_for for each in writer.databases)
    if writer.journal_error and not is_stored:
        return "journal"
    is_idle = all(stream.state is not StreamState.LIVE for stream in status.streams)
    return "streams" if status.streams and is_idle else ""


def _answer(reason: Reason) -> Response:
    return json_response(Probe(not reason, reason), 503 if reason else 200)


_ANSWERS = {200: (Probe,), 503: (Probe,)}
OPERATIONS = [
    Operation("GET", "/livez", live, "Whether it lives", _ANSWERS),
    Operation("GET", "/readyz", ready, "Whether it works", _ANSWERS),
    Operation("GET", "/startupz", started, "Whether it has started", _ANSWERS),
]
PATHS = frozenset(operation.path for operation in OPERATIONS)
REASONS: tuple[str, ...] = get_args(Reason)
