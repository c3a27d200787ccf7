"""The reference of the API is made of its OpenAPI document, with an example a route."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from control.api import openapi
from control.app import OPERATIONS
from control.state.listings import TimedEvent
from engine.data.names import StreamKey, StreamKind, Transport
from engine.messages.listings import InstrumentEvent
from shards.venues.kit import Venue
from tests.control.api.api_rig import Rig, run_with_rig
from tests.docs.generated import agree
from tests.pages import ROOT

PAGE = "docs/control-api.md"
_STREAM: Final = {"exchange": "binance_linear", "symbol": "BTCUSDT", "kind": "Trades"}
_PATH: Final = "/streams/binance_linear/BTCUSDT/Trades/Ws"
EXAMPLES: Final[dict[str, tuple[str, Any]]] = {
    "GET /streams": ("/streams?state=live&limit=1", None),
    "POST /streams": ("/streams", _STREAM),
    "DELETE /streams": ("/streams", {**_STREAM, "kind": "OpenInterest"}),
    "GET /streams/count": ("/streams/count?kind=Trades", None),
    "GET /streams/capabilities/{exchange}": ("/streams/capabilities/HyperliquidPerp", None),
    "GET /streams/{exchange}/{symbol}/{kind}/{transport}/knobs": (f"{_PATH}/knobs", None),
    "PATCH /streams/{exchange}/{symbol}/{kind}/{transport}/knobs": (
        f"{_PATH}/knobs", {"db_writes_enabled": False, "flush_rows": 500},
    ),
    "POST /streams/{exchange}/{symbol}/{kind}/{transport}/snapshot": (
        "/streams/binance_linear/BTCUSDT/L2Book/Ws/snapshot", None,
    ),
    "GET /streams/{exchange}/{symbol}/{kind}/{transport}": (_PATH, None),
    "GET /instruments": ("/instruments?q=btc&quote=USDT&limit=1", None),
    "GET /instruments/count": ("/instruments/count?exchange=binance_linear&quote=USDT", None),
    "GET /instruments/exists": (
        "/instruments/exists?exchange=binance_linear&symbol=BTCUDST", None,
    ),
    "GET /instruments/events": ("/instruments/events?limit=1", None),
    "POST /instruments/refresh": ("/instruments/refresh?exchange=binance_linear", None),
    "GET /metrics/streams": ("/metrics/streams?top=1", None),
}  # fmt: skip
"""What is asked of a route, where that is more than its path."""
_MOVES: Final = {"uptime_s", "memory_free_fraction", "retry_after_s"}
"""What is another number each time."""
_NESTED_MAX: Final = 2
_TEXT_LINES: Final = 3


def test_the_reference_is_made_of_the_document() -> None:
    described = openapi.document(OPERATIONS, "0")
    agree(PAGE, "".join(routes(described, run_with_rig(asked))))


async def asked(rig: Rig) -> dict[str, str]:
    """Request and answer of each route, in the order of the document."""
    prepare(rig)
    rig.serve(replace(rig.services, shows_streams=True))
    found = {}
    for operation in OPERATIONS:
        name = f"{operation.method} {re.sub(r':path', '', operation.path)}"
        target, body = EXAMPLES.get(name, (operation.path, None))
        answer = await rig.ask(operation.method, target, body)
        assert answer.status < 400, f"{name} needs an example: {answer.text!r}"
        sent = f" -H 'Content-Type: application/json' -d '{json.dumps(body)}'" if body else ""
        way = "" if operation.method == "GET" else f" -X {operation.method}"
        url = f'"$BASE{target}"' if "?" in target else f"$BASE{target}"
        shown = shortened(answer.text.decode())
        found[name] = f"```sh\ncurl{way} {url}{sent}\n```\n```\n{answer.status} {shown}\n```\n"
    return found


def prepare(rig: Rig) -> None:
    """Streams that run, and something that has happened."""
    for kind in (StreamKind.L2_BOOK, StreamKind.OPEN_INTEREST):
        way = Transport.HTTP_POLL if kind is StreamKind.OPEN_INTEREST else Transport.WS
        rig.supervisor.run(StreamKey("binance_linear", "BTCUSDT", kind, way))
    for report in rig.supervisor.streams.values():
        report.added_ns, report.last_recv_ns = 1_700_000_000 * 10**9, 1_700_000_060 * 10**9
        report.frame_count, report.row_count = 600, 9_000
    event = InstrumentEvent("binance_linear", "SOLUSDT", "changed", "state: trading -> halted")
    rig.instruments._events[event.venue].append(TimedEvent(1_700_000_000 * 10**9, event))
    rig.supervisor.tell()
    rig.instruments._fetch = _listing


async def _listing(venue: Venue) -> list[bytes]:
    return [(ROOT / "tests" / "data" / venue.name / "instruments.json").read_bytes()]


def shortened(text: str) -> str:
    """An answer to look at: one entry of a list, what is nested deep left out."""
    try:
        answer = json.loads(text)
    except ValueError:
        return "\n".join([*text.splitlines()[:_TEXT_LINES], "…"])
    return json.dumps(_cut(answer, _NESTED_MAX), ensure_ascii=False).replace('"…"', "…")


def _cut(value: Any, depth: int) -> Any:
    if isinstance(value, list):
        return [_cut(each, depth - 1) for each in value[:1]] + ["…"] * (len(value) > 1)
    if isinstance(value, dict):
        kept = {name: "…" if name in _MOVES else each for name, each in value.items()}
        return {name: _cut(each, depth - 1) for name, each in kept.items()} if depth > 0 else "…"
    return value


def routes(described: dict[str, Any], examples: dict[str, str]) -> Iterator[str]:
    """A section for each route."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            name = f"{method.upper()} {path}"
            said = " ".join(operation["description"].split())
            yield f"\n### {name}\n\n{said}\n\n{facts(operation)}{examples.pop(name)}"
    assert not examples


def facts(operation: dict[str, Any]) -> str:
    """Of its query, its body and its answers."""
    lines = []
    if query := [each for each in operation["parameters"] if each["in"] == "query"]:
        named = [f"`{each['name']}`{' (needed)' * each['required']}" for each in query]
        lines.append(f"Query: {', '.join(named)}.")
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        kinds = [named_type(each) for each in schema.get("oneOf", [schema])]
        lines.append(f"Body: {' or '.join(kinds)}{'' if body['required'] else ', or none'}.")
    usual = {"400", "401", "403", "429", "413", "415"}
    statuses = [status for status in operation["responses"] if status not in usual]
    lines.append(f"Answers: {', '.join(statuses)}.")
    return "<br>\n".join(lines) + "\n\n"


def named_type(schema: dict[str, Any]) -> str:
    """By its name in the document."""
    if schema.get("type") == "array":
        return f"a list of {named_type(schema['items'])}"
    return f"`{schema['$ref'].rpartition('/')[2]}`"
