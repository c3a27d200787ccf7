"""Faults on command: everything a venue or a network has been seen to do, at a chosen moment."""

from asyncio import get_running_loop
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import pack

from engine.base.clock import monotonic_ns, wall_ns
from shards.simulator.core.encoder import Encoder
from shards.simulator.core.frames import text_frame
from shards.simulator.core.ledger import UNREADABLE_KINDS
from shards.simulator.core.limits import RestGate
from shards.simulator.core.sessions import Hub, Session
from shards.simulator.core.spoiling import FRAME_VALUES, REST_VALUES, push_rows
from shards.simulator.core.venue import SimVenue

__all__ = ["FaultError", "FaultTarget", "inject", "malformed"]

_DEEP_NESTING = 100_000
_CLOSE_DELAY_S = 0.05
_COUNT_LIMIT = 100_000
_CLOSE_CODES = range(1000, 5000)
_HTTP_ERRORS = range(400, 600)


class FaultError(ValueError):
    """The request names a fault that cannot be done; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class FaultTarget:
    """One venue, as the faults reach it."""

    encoder: Encoder
    hub: Hub
    gate: RestGate
    market: SimVenue | None
    """None while a recorded session is replayed."""


_ANY_VENUE: dict[str, bytes] = {
    "truncated": b'{"e":"aggTrade","E":1795000000120,"s":"BTC',
    "bad_utf8": b'{"e":"aggTrade","s":"\xff\xfe\xfa"}',
    "deep_nesting": b"[" * _DEEP_NESTING,
    "empty": b"",
    "not_object": b"17",
    "plain_text": b"Websocket connection established.",
}


def malformed(encoder: Encoder) -> dict[str, bytes]:
    """Give the payloads no client may take for data, by variant. None is ever in the ledger."""
    return {**_ANY_VENUE, **encoder.malformed}


def inject(targets: Mapping[str, FaultTarget], request: object) -> dict[str, object]:
    """Do what the request asks; give what was done."""
    if not isinstance(request, dict):
        raise FaultError("the body must be a JSON object")
    fault = request.get("fault")
    action = _ACTIONS.get(str(fault))
    if action is None:
        raise FaultError(f"unknown fault {fault!r}; one of {', '.join(sorted(_ACTIONS))}")
    venue = request.get("venue")
    target = targets.get(str(venue))
    if target is None:
        raise FaultError(f"unknown venue {venue!r}; one of {', '.join(sorted(targets))}")
    return {"fault": fault, "venue": venue, **action(target, request)}


def _whole(request: Mapping[str, object], name: str, default: int, limit: int) -> int:
    value = request.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= limit:
        raise FaultError(f"{name} must be a whole number from 1 to {limit}, not {value!r}")
    return value


def _seconds(request: Mapping[str, object], name: str, default: float) -> float:
    value = request.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 86_400:
        raise FaultError(f"{name} must be a number of seconds above 0, not {value!r}")
    return float(value)


def _market(target: FaultTarget) -> SimVenue:
    if target.market is None:
        raise FaultError("not possible while a recorded session is replayed")
    return target.market


def _symbol_index(target: FaultTarget, request: Mapping[str, object]) -> int:
    symbol = request.get("symbol")
    if symbol not in target.hub.symbols:
        raise FaultError(f"unknown symbol {symbol!r}")
    return target.hub.symbols.index(str(symbol))


def _sessions(target: FaultTarget, request: Mapping[str, object]) -> list[Session]:
    """Choose the venue's sockets, or those of one category (`group`)."""
    group = request.get("group")
    return [s for s in list(target.hub.sessions) if group is None or s.group == group]


def _malformed(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    variants = malformed(target.encoder)
    wanted = request.get("variant", "all")
    if wanted != "all" and wanted not in variants:
        raise FaultError(f"unknown variant {wanted!r}; all or one of {', '.join(variants)}")
    names = list(variants) if wanted == "all" else [str(wanted)]
    count = _whole(request, "count", 1, 1000)
    sessions = _sessions(target, request)
    frames = 0
    for session in sessions:
        for name in names:
            payload = variants[name]
            if session.combined and name in target.encoder.malformed:
                stream = target.encoder.a_stream.encode()
                payload = b'{"stream":"%s","data":%s}' % (stream, payload)
            frames += count * session.write(text_frame(payload) * count)
    return {"frames": frames, "variants": names}


def _unreadable(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    """The next elements of a kind, pushed or with `rest` polled, come with a value of nonsense."""
    _market(target)
    symbol = target.hub.symbols[_symbol_index(target, request)]
    kind, rest = request.get("kind", "trade"), request.get("rest", False)
    kinds = [each for each in UNREADABLE_KINDS if each in target.encoder.spoiled]
    if kind not in kinds or not isinstance(rest, bool):
        raise FaultError(f"kind must be one of {', '.join(kinds)}; rest true or false")
    variants = REST_VALUES if rest else FRAME_VALUES
    variant = request.get("variant", "all")
    if variant != "all" and variant not in variants:
        raise FaultError(f"unknown variant {variant!r}; all or one of {', '.join(variants)}")
    count = _whole(request, "count", 1, _COUNT_LIMIT)
    target.hub.spoiler.plan(str(kind), symbol, count, str(variant), rest=rest)
    return {"kind": kind, "rest": rest, "planned": count}


def _disconnect(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    sessions = _sessions(target, request)
    for session in sessions:
        session.transport.abort()
    return {"sockets": len(sessions)}


def _close(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    code = _whole(request, "code", 1001, _CLOSE_CODES.stop - 1)
    if code not in _CLOSE_CODES:
        raise FaultError("code must be a WebSocket close code, 1000 to 4999")
    sessions = _sessions(target, request)
    for session in sessions:
        session.write(text_frame(pack("!H", code) + b"simulated", opcode=8))
        get_running_loop().call_later(_CLOSE_DELAY_S, session.transport.close)
    return {"sockets": len(sessions), "code": code}


def _shutdown(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    notice = target.encoder.notice(wall_ns() // 1_000_000)
    if notice is None:
        raise FaultError("this venue announces nothing")
    seconds = _seconds(request, "seconds", 60.0)
    sessions = _sessions(target, request)
    for session in sessions:
        session.send_text(notice)
        get_running_loop().call_later(seconds, session.transport.abort)
    return {"sockets": len(sessions), "seconds": seconds}


def _gap(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    market, index = _market(target), _symbol_index(target, request)
    count = _whole(request, "count", 1, _COUNT_LIMIT)
    now_ms = wall_ns() // 1_000_000
    kind = request.get("kind", "trade")
    if kind == "trade":
        for done in range(0, count, 4096):
            _withhold_trades(market, index, min(4096, count - done), now_ms)
    elif kind == "book" and market.encoder.numbered_books:
        for _ in range(count):
            market.step_book(market.state_at(index), now_ms, withheld=True)
    else:
        raise FaultError("kind must be trade, or book on a venue whose books have a chain")
    return {"kind": kind, "withheld": count}


def _withhold_trades(venue: SimVenue, index: int, count: int, at_ms: int) -> None:
    """Let trades happen and push them to nobody."""
    state = venue.state_at(index)
    trades = state.trade(count, at_ms)
    state.unsent(trades)
    venue.hub.withheld_count += count
    if venue.ledger.enabled:
        venue.ledger.withheld(state.ledger_trades(trades))


def _repeat_last_trade(venue: SimVenue, index: int) -> bool:
    """Push the latest trade that somebody got once more. It is in the ledger already."""
    state = venue.state_at(index)
    texts = [state.trade_rows.row(trade).encode() for trade in state.newest_sent(1)]
    return bool(texts) and push_rows(venue, state, texts)


def _duplicate(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    market, index = _market(target), _symbol_index(target, request)
    count = _whole(request, "count", 1, 1000)
    return {"sent": sum(_repeat_last_trade(market, index) for _ in range(count))}


def _stale_snapshot(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    if not _market(target).encoder.numbered_books:
        raise FaultError("this venue serves no snapshot that events continue")
    target.gate.stale_count = _whole(request, "count", 1, _COUNT_LIMIT)
    return {"count": target.gate.stale_count}


def _silence(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    seconds = _seconds(request, "seconds", 5.0)
    target.hub.silence(seconds)
    return {"seconds": seconds}


def _empty_side(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    market, index = _market(target), _symbol_index(target, request)
    side, seconds = request.get("side", "bid"), _seconds(request, "seconds", 5.0)
    if side not in ("bid", "ask") or not market.encoder.null_sides:
        raise FaultError("side must be bid or ask, on a venue that says null for an empty side")
    market.state_at(index).empty_until_ns[str(side)] = monotonic_ns() + int(seconds * 1e9)
    return {"side": side, "seconds": seconds}


def _http_status(target: FaultTarget, request: Mapping[str, object]) -> dict[str, object]:
    status = _whole(request, "status", 429, _HTTP_ERRORS.stop - 1)
    if status not in _HTTP_ERRORS:
        raise FaultError("status must be an HTTP error, 400 to 599")
    target.gate.refuse_count = _whole(request, "count", 1, _COUNT_LIMIT)
    target.gate.refuse_status = status
    target.gate.retry_after_s = _whole(request, "retry_after_s", 1, 86_400)
    return {"status": status, "count": target.gate.refuse_count}


_Action = Callable[[FaultTarget, Mapping[str, object]], dict[str, object]]

_ACTIONS: dict[str, _Action] = {
    "malformed": _malformed,
    "unreadable": _unreadable,
    "disconnect": _disconnect,
    "close": _close,
    "shutdown": _shutdown,
    "gap": _gap,
    "duplicate": _duplicate,
    "stale_snapshot": _stale_snapshot,
    "silence": _silence,
    "empty_side": _empty_side,
    "http_status": _http_status,
}
