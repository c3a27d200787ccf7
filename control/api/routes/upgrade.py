"""`/upgrade`: the engine's processes replaced while it collects, and how far that is."""

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from control.api.routes import Operation, Services
from control.http import requests
from control.http.errors import ApiError, json_response
from engine.messages.status import UpgradeReport


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


async def get_upgrade(_: Request, services: Services) -> Response:
    """How far the last upgrade is, or how it ended."""
    status = services.backend.status
    return json_response(_row(status.upgrade if status else None))


async def begin_upgrade(request: Request, services: Services) -> Response:
    """Replace the engine's processes by those of the code and configuration on disk. Nothing is
    touched unless that passes a trial, and streams pass to the new ones without a gap.
    """
    if await requests.read_body(request):
        raise ApiError("invalid_argument", "this call takes no body", field="body")
    if why_not := await services.backend.upgrade():
        raise ApiError("upgrading" if "upgraded" in why_not else "unavailable", why_not)
    status = services.backend.status
    return json_response(_row(status.upgrade if status else None), 202)


def _row(report: UpgradeReport | None) -> UpgradeRow:
    if report is None:
        return UpgradeRow("none", "", 0, 0, "", 0, 0)
    return UpgradeRow(**msgspec.structs.asdict(report))


OPERATIONS = [
    Operation("GET", "/upgrade", get_upgrade, "How the last upgrade went", {200: (UpgradeRow,)}),
    Operation(
        "POST", "/upgrade", begin_upgrade, "Upgrade the running engine", {202: (UpgradeRow,)},
        needs_body=False, errors=(409,),
    ),
]  # fmt: skip
