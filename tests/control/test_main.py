"""The control process's routes, without a network."""

import asyncio
import json
from typing import Any

import msgspec

from control.main import LastStatus, make_app
from engine.status import ChildReport, EngineStatus, WriterReport


def ask(last: LastStatus, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
    """One request, spoken in ASGI."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http",
    }  # fmt: skip
    asyncio.run(make_app(last)(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(each.get("body", b"") for each in sent[1:]))


def engine_status() -> EngineStatus:
    return EngineStatus(
        "green", "all streams deliver", "running", "x", 12.5, [],
        WriterReport(ChildReport("writer", "up")), ChildReport("control", "up"), [],
    )  # fmt: skip


def test_runtime_health_before_the_first_status_is_yellow() -> None:
    status, body = ask(LastStatus(), "/health/runtime")
    assert (status, body["status"], body["reason"]) == (200, "yellow", "starting")


def test_runtime_health_shows_what_the_supervisor_said() -> None:
    last = LastStatus()
    last.take(msgspec.Raw(msgspec.json.encode(engine_status())))
    status, body = ask(last, "/health/runtime")
    assert status == 200
    assert body["status"] == "green"
    assert body["uptime_s"] == 12.5
    assert body["writer"]["child"]["state"] == "up"
    assert body["stream_count"] == 0


def test_a_silent_supervisor_turns_the_light_red() -> None:
    last = LastStatus()
    last.take(msgspec.Raw(msgspec.json.encode(engine_status())))
    last._heard_s -= 60
    _, body = ask(last, "/health/runtime")
    assert body["status"] == "red"
    assert "silent" in body["reason"]


def test_other_paths_and_methods_answer_in_json() -> None:
    assert ask(LastStatus(), "/")[1]["routes"] == ["/", "/health/runtime"]
    assert ask(LastStatus(), "/none")[0] == 404
    assert ask(LastStatus(), "/health/runtime", "POST")[0] == 405
