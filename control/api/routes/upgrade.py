"""`/upgrade`: the engine's processes replaced while it collects, and how far that is."""

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from control.api.routes import Operation, Services
from control.http import requests
from control.http.errors import ApiError, json_response
from engine.messages.status import EngineStatus


class UpgradeRow(msgspec.Struct):
    """The last upgrade. `step` is what is done now or was done last, `reason` why it failed; times
    are 0 where there is none.
    """

    state: Literal["none", "running", "done", "failed"]
    step: str
    passed_count: int
    """Streams that have passed to a new process."""
    stream_count: int
    """Those that are to pass."""
    reason: str
    started_ns: int
    ended_ns: int
    release: str
    """What code the engine's first process runs."""
    releases: dict[str, list[str]]
    """Which processes run which code: more than one while an upgrade goes on, or after one that
    failed half way."""


async def get_upgrade(_: Request, services: Services) -> Response:
    """How far the last upgrade is, or how it ended."""
    return json_response(_row(services.backend.status))


async def begin_upgrade(request: Request, services: Services) -> Response:
    """Replace the engine's processes by those of the code and configuration on disk. Nothing is
    touched unless that passes a trial, and streams pass to the new ones without a gap.
    """
    if await requests.read_body(request):
        raise ApiError("invalid_argument", "this call takes no body", field="body")
    if why_not := await services.backend.upgrade():
        raise ApiError("upgrading" if "upgraded" in why_not else "unavailable", why_not)
    return json_response(_row(services.backend.status), 202)


def _row(status: EngineStatus | None) -> UpgradeRow:
    release, releases = (status.release, status.releases) if status else ("", {})
    if status is None or status.upgrade is None:
        return UpgradeRow("none", "", 0, 0, "", 0, 0, release, releases)
    said = msgspec.structs.asdict(status.upgrade)
    return UpgradeRow(**said, release=release, releases=releases)


OPERATIONS = [
    Operation("GET", "/upgrade", get_upgrade, "How the last upgrade went", {200: (UpgradeRow,)}),
    Operation(
        "POST", "/upgrade", begin_upgrade, "Upgrade the running engine", {202: (UpgradeRow,)},
        needs_body=False, errors=(409,),
    ),
]  # fmt: skip
