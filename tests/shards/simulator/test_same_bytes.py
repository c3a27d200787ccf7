"""The same seed sends the same bytes: frames, REST bodies and ledger files, of two venues.

A scripted run under a clock of its own, over real sockets. `same_bytes.json` has a digest of the
frames of each topic of each socket, of each REST answer and of each file of the ledger. Who means
to change what is sent puts the digests that the failing test writes down in its place.
"""

import asyncio
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import asynccontextmanager
from math import exp
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import uvloop

from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues import ENCODERS

pytestmark = pytest.mark.whole

EXPECTED = Path(__file__).with_name("same_bytes.json")
START_NS = 1_795_000_000_000_000_000
SLOT_NS = 5_000_000
REST = "/binance_linear/fapi/v1/"
INFO = "/hyperliquid_perp/info"
PUBLIC = [
    "btcusdt@depth", "btcusdt@depth@100ms", "btcusdt@depth@500ms", "btcusdt@depth@0ms",
    "btcusdt@depth5@0ms", "btcusdt@depth10", "btcusdt@depth20@500ms", "btcusdt@bookTicker",
    "ethusdt@depth@100ms", "ethusdt@bookTicker", "nosuch@depth", "x",
]  # fmt: skip
MARKET = [
    f"{symbol}@{kind}"
    for symbol in ("btcusdt", "ethusdt")
    for kind in ("aggTrade", "markPrice", "markPrice@1s", "forceOrder")
]
COINS: list[dict[str, object]] = [
    {"type": "trades", "coin": "BTC"},
    {"type": "l2Book", "coin": "BTC"},
    {"type": "l2Book", "coin": "BTC", "fast": True},
    {"type": "l2Book", "coin": "BTC", "nSigFigs": 5, "mantissa": 2},
    {"type": "bbo", "coin": "BTC"},
    {"type": "activeAssetCtx", "coin": "BTC"},
    {"type": "trades", "coin": "ETH"},
    {"type": "bbo", "coin": "ETH"},
    {"type": "activeAssetCtx", "coin": "ETH"},
]
GETS = (
    "ping", "time", "exchangeInfo", "depth?symbol=BTCUSDT&limit=1000",
    "depth?symbol=SOLUSDT&limit=5", "depth?symbol=NOPE", "depth?symbol=BTCUSDT&limit=7",
    "aggTrades?symbol=BTCUSDT", "aggTrades?symbol=ETHUSDT&fromId=4101000010&limit=20",
    "aggTrades?symbol=BTCUSDT&fromId=x", "premiumIndex", "premiumIndex?symbol=BTCUSDT",
    "premiumIndex?symbol=NOPE", "openInterest?symbol=ETHUSDT", "openInterest?symbol=NOPE",
    "fundingRate?symbol=BTCUSDT", "fundingRate?symbol=ETHUSDT&startTime=1&limit=3",
    "fundingRate?symbol=BTCUSDT&limit=0", "fundingInfo", "ticker/bookTicker",
    "ticker/bookTicker?symbol=BTCUSDT", "ticker/bookTicker?symbol=NOPE",
)  # fmt: skip
POSTS: tuple[object, ...] = (
    {"type": "meta"}, {"type": "metaAndAssetCtxs"}, {"type": "l2Book", "coin": "BTC"},
    {"type": "l2Book", "coin": "NOPE"}, {"type": "recentTrades", "coin": "BTC"},
    {"type": "recentTrades", "coin": "NOPE"}, {"type": "fundingHistory", "coin": "BTC"},
    {"type": "fundingHistory", "coin": "ETH", "startTime": 0},
    {"type": "fundingHistory", "coin": "NOPE", "startTime": 0}, {"type": "else"}, [],
)  # fmt: skip
FAULTS: tuple[dict[str, Any], ...] = (
    *(
        {"fault": "unreadable", "venue": venue, "symbol": symbol, "kind": kind, "count": 2}
        for venue, symbol in (("binance_linear", "BTCUSDT"), ("hyperliquid_perp", "BTC"))
        for kind in ("trade", "book", "quote", "funding", "liquidation")
    ),
    {"fault": "unreadable", "venue": "binance_linear", "symbol": "BTCUSDT", "kind": "funding",
     "rest": True},
    {"fault": "unreadable", "venue": "binance_linear", "symbol": "ETHUSDT", "rest": True,
     "kind": "open_interest"},
    {"fault": "unreadable", "venue": "hyperliquid_perp", "symbol": "ETH", "kind": "funding",
     "rest": True},
    {"fault": "stale_snapshot", "venue": "binance_linear"},
    {"fault": "empty_side", "venue": "hyperliquid_perp", "symbol": "BTC", "side": "ask",
     "seconds": 0.5},
    {"fault": "shutdown", "venue": "binance_linear", "seconds": 3600},
)  # fmt: skip
IN_SUMS = {f"{name}.bin" for name in ("trade", "withheld", "book", "snapshot", "quote")}
LISTINGS: tuple[dict[str, Any], ...] = (
    {"venue": "binance_linear", "action": "list", "symbol": "NEWUSDT", "price": 42.0},
    {"venue": "hyperliquid_perp", "action": "list", "symbol": "NEW", "price": 3.5},
    {"venue": "binance_linear", "action": "change", "symbol": "BTCUSDT", "tick_size": "0.500",
     "step_size": "0.0001", "funding_interval_hours": 4},
    {"venue": "hyperliquid_perp", "action": "change", "symbol": "SOL", "sz_decimals": 1},
    {"venue": "binance_linear", "action": "delist", "symbol": "ETHUSDT"},
    {"venue": "hyperliquid_perp", "action": "delist", "symbol": "ETH"},
)  # fmt: skip


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator["Clock"]:
    """Let every module of the simulator read a clock that only the test moves."""
    clock = Clock()
    for name, module in list(sys.modules.items()):
        if name.startswith("shards.simulator"):
            for reader in ("wall_ns", "monotonic_ns"):
                if hasattr(module, reader):
                    monkeypatch.setattr(module, reader, clock)
    yield clock


class Clock:
    """Tells the time of the script."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns


class Script:
    """A paused simulator whose time the script lets pass, and what came out of it."""

    def __init__(self, simulator: Simulator, http: aiohttp.ClientSession, clock: Clock) -> None:
        self._simulator, self._http, self._clock = simulator, http, clock
        self.url = f"http://127.0.0.1:{simulator.port}"
        self.said: dict[str, list[bytes]] = defaultdict(list)

    def pass_time(self, seconds: float) -> None:
        """Books, quotes and contracts move every 5 ms; trades happen at the rate."""
        pacer = self._simulator.pacer
        for _ in range(int(seconds * 1e9) // SLOT_NS):
            before = self._clock.now_ns
            self._clock.now_ns += SLOT_NS
            pacer._step_books(before, self._clock.now_ns)
            pacer._emit(SLOT_NS / 1e9)

    def burst(self, trades_per_s: float) -> None:
        """Send a tenth of a second of this rate at once: thousands of trades in a block."""
        self._simulator.pacer.set_rate(trades_per_s)
        self._simulator.pacer._emit(0.1)
        self._simulator.pacer.set_rate(100.0)

    async def ask(self, method: str, path: str, body: object = None) -> None:
        """Call, and keep what was answered."""
        async with self._http.request(method, self.url + path, json=body) as reply:
            weight = reply.headers.get("X-MBX-USED-WEIGHT-1M")
            said = f"{reply.status} {reply.content_type} {weight} ".encode() + await reply.read()
        self.said[f"{method} {path} {json.dumps(body) if body else ''}".strip()].append(said)

    async def ask_all(self) -> None:
        """Call everything there is to call."""
        for path in GETS:
            await self.ask("GET", REST + path)
        for body in POSTS:
            await self.ask("POST", INFO, body)

    async def subscribed(self, count: int) -> None:
        """Wait until so many subscriptions have reached the simulator."""
        async with asyncio.timeout(30):
            while self._simulator.status()["subscriptions"] != count:
                await asyncio.sleep(0.001)

    def keep_status(self) -> None:
        """Keep what the simulator counted; sockets come in no order."""
        status = self._simulator.status()
        for counted in (status, *status["venues"].values()):
            del counted["buffered_bytes"]
            counted.get("sockets", []).sort(key=repr)
        self.said["status"].append(json.dumps(status, sort_keys=True).encode())

    @asynccontextmanager
    async def socket(self, label: str, path: str, last: str) -> Any:
        """Keep what a socket receives, by topic, up to the answer to its last message."""
        socket = await self._http.ws_connect(self.url + path, max_msg_size=1 << 24)
        yield socket
        await socket.send_str(last)
        while True:
            payload = (await socket.receive_str(timeout=30)).encode()
            topic = topic_of(payload)
            self.said[f"{label} {topic}"].append(payload)
            if topic == "last":
                return


def topic_of(payload: bytes) -> str:
    """Name the stream of a message, or what it answers."""
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError):
        return "unparsed"
    if not isinstance(message, dict):
        return "unparsed"
    if message.get("id") == 99 or message.get("channel") == "pong":
        return "last"
    inner = message.get("data", message)
    inner = inner[0] if isinstance(inner, list) and inner else inner
    kind = message.get("stream") or message.get("e") or message.get("channel") or "answers"
    symbol = inner.get("s") or inner.get("coin") if isinstance(inner, dict) else None
    return f"{kind} {symbol}" if symbol else str(kind)


async def play(script: Script) -> None:
    """Subscribe to everything, let time pass, and do to it what can be done."""
    listed = '{"method":"LIST_SUBSCRIPTIONS","id":99}'
    market = script.socket("market", "/binance_linear/market/ws", listed)
    wrapped = script.socket(
        "wrapped", f"/binance_linear/market/stream?streams={'/'.join(MARKET)}", listed
    )
    public = script.socket("public", "/binance_linear/public/stream", listed)
    raw = script.socket("raw", "/binance_linear/public/ws/btcusdt@depth/btcusdt@aggTrade", listed)
    coins = script.socket("coins", "/hyperliquid_perp/ws", '{"method":"ping"}')
    late = script.socket("late", "/hyperliquid_perp/ws", '{"method":"ping"}')
    async with market as a, wrapped, public as b, raw, coins as c, late as d:
        await a.send_json({"method": "SUBSCRIBE", "params": MARKET, "id": 1})
        await b.send_json({"method": "SUBSCRIBE", "params": PUBLIC, "id": 2})
        for one in COINS:
            await c.send_json({"method": "subscribe", "subscription": one})
        await script.subscribed(39)
        script.pass_time(4.0)
        await script.ask_all()
        script.burst(60_000.0)
        for venue, symbol in (("binance_linear", "BTCUSDT"), ("hyperliquid_perp", "BTC")):
            for fault in ("duplicate", "gap"):
                body: dict[str, Any] = {
                    "fault": fault,
                    "venue": venue,
                    "symbol": symbol,
                    "count": 3,
                }
                await script.ask("POST", "/simulator/faults", body)
        gap = {"fault": "gap", "venue": "binance_linear", "symbol": "BTCUSDT", "kind": "book"}
        await script.ask("POST", "/simulator/faults", gap)
        script.pass_time(0.5)
        await d.send_json({"method": "subscribe", "subscription": COINS[0]})
        await script.subscribed(40)
        for body in FAULTS:
            await script.ask("POST", "/simulator/faults", body)
        await script.ask_all()
        script.pass_time(2.2)
        for body in LISTINGS:
            await script.ask("POST", "/simulator/instruments", body)
        await d.send_json(
            {"method": "subscribe", "subscription": {"type": "trades", "coin": "SOL"}}
        )
        again = {"method": "SUBSCRIBE", "params": ["newusdt@aggTrade", "newusdt@depth"], "id": 4}
        await a.send_json(again)
        await b.send_json(again)
        await script.subscribed(45)
        script.pass_time(2.2)
        script.burst(200_000.0)
        await script.ask_all()
        await spoil(script)
        script.keep_status()
        await talk(a, c)


async def spoil(script: Script) -> None:
    """Send each payload that nobody may take for data."""
    for venue in ("binance_linear", "hyperliquid_perp"):
        for variant in ("truncated", "deep_nesting", "empty", "not_object", "plain_text",
                        "wrong_types", "missing_fields", "nan_price", "infinite_price",
                        "huge_number"):  # fmt: skip
            body = {"fault": "malformed", "venue": venue, "variant": variant}
            await script.ask("POST", "/simulator/faults", body)


async def talk(a: aiohttp.ClientWebSocketResponse, c: aiohttp.ClientWebSocketResponse) -> None:
    """Say to both venues what makes sense and what does not."""
    await a.send_json({"method": "UNSUBSCRIBE", "params": MARKET[:2], "id": 5})
    for text in ("{", "[]", '{"method":"DANCE"}', '{"method":"SET_PROPERTY","id":7}',
                 '{"method":"SUBSCRIBE","params":"a","id":8}', '{"id":"x"}'):  # fmt: skip
        await a.send_str(text)
    for one in (COINS[0], COINS[1]):
        await c.send_json({"method": "subscribe", "subscription": one})
        await c.send_json({"method": "unsubscribe", "subscription": one})
        await c.send_json({"method": "unsubscribe", "subscription": one})
    for text in ("{", "7", '{"method":"post","id":1}',
                 '{"method":"post","id":3,"request":{"type":"info","payload":'
                 '{"type":"l2Book","coin":"ETH"}}}'):  # fmt: skip
        await c.send_str(text)


def digests(said: dict[str, list[bytes]], ledger: Path) -> dict[str, str]:
    """Digest what was said by topic, and each file."""
    found = {
        topic: f"{len(parts)} {hashlib.sha256(b'|'.join(parts)).hexdigest()[:24]}"
        for topic, parts in sorted(said.items())
    }
    for path in sorted(ledger.iterdir()):
        content = path.read_bytes()
        found[path.name] = f"{len(content)} {hashlib.sha256(content).hexdigest()[:24]}"
    return found


def arithmetic() -> str:
    """Tell machines apart whose random draws differ in the last bit: their markets differ, too."""
    draws = np.random.default_rng(1).lognormal(3.0, 1.2, 4096).tolist()
    return hashlib.sha256(repr([*draws, *map(exp, draws[:99])]).encode()).hexdigest()[:24]


@pytest.mark.parametrize("in_sums", [False, True])
def test_the_same_seed_sends_the_same_bytes(clock: Clock, tmp_path: Path, in_sums: bool) -> None:
    expected = json.loads(EXPECTED.read_text("utf-8"))
    if arithmetic() != expected["arithmetic"]:
        pytest.skip("this machine's arithmetic makes another market of the same seed")
    ledger = tmp_path / "ledger"
    settings = SimulatorSettings(
        trades_per_s=100.0, symbols=3, seed=5, ledger=ledger, ledger_in_sums=in_sums,
        liquidations_per_minute=600.0,
    )  # fmt: skip

    async def scenario() -> dict[str, list[bytes]]:
        simulator = Simulator(settings, ENCODERS[:2])
        simulator.pacer.paused = True
        await simulator.start()
        try:
            async with aiohttp.ClientSession() as http:
                script = Script(simulator, http, clock)
                await play(script)
                return script.said
        finally:
            await simulator.close()

    found = digests(uvloop.run(scenario()), ledger) | {"arithmetic": arithmetic()}
    kept = tmp_path / EXPECTED.name
    kept.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    left_out = IN_SUMS if in_sums else {"sums.json"}
    differ = {
        name
        for name in (expected.keys() | found.keys()) - left_out
        if expected.get(name) != found.get(name)
    }
    assert differ == set(), f"see {kept}"
