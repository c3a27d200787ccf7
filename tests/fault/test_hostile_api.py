"""Ten thousand hostile requests to a collecting engine: no server error, not a row fewer."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from engine.data.layout import open_layout
from engine.process import instance
from tests.control.api.hostile_requests import CLOSE, DISHONEST, GOOD, HOSTILE, exchange, status_of
from tests.flow.rig import Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]

REQUESTS = 10_000
CLIENTS = 64


def control_port(rig: Rig) -> int:
    """Where the rig's engine listens."""
    note = instance.read_note(open_layout(rig.directory / "state"))
    assert note is not None
    port = urlsplit(note.control_url).port
    assert port is not None
    return port


async def knows_its_symbols(port: int) -> bool:
    """Whether an honest POST is answered already: before, it is a 503 that is no fault."""
    path = b"/instruments/exists?exchange=BinanceLinear&symbol=BTCUSDT"
    answer = await exchange(port, b"GET %b HTTP/1.1\r\nHost: localhost" % path + CLOSE)
    return b'"exists":true' in answer


async def attack(port: int) -> Counter[int | str]:
    """Send everything, 64 at a time; return the statuses of the answers. A 503 that says when to
    try again is what a machine too busy to ask its supervisor in time must answer: `busy` here.
    """
    seed = random.Random(11)
    kinds = [*HOSTILE, *(raw for raw, _ in DISHONEST)]
    work = iter([seed.choice(kinds) for _ in range(REQUESTS)])
    seen: Counter[int | str] = Counter()

    async def client() -> None:
        for raw in work:
            closing = raw.replace(b"\r\n\r\n", CLOSE, 1)
            answer = await exchange(port, closing, patience_s=60)
            is_busy = status_of(answer) == 503 and b"retry-after:" in answer.lower()
            seen["busy" if is_busy else status_of(answer)] += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return seen


@pytest.mark.fault("A09")
def test_an_attack_on_the_api_costs_no_row(make_rig: MakeRig) -> None:
    rig = make_rig(rate="4000", settings="[control]\nadmission = 'any'\n")
    engine = rig.start()
    control = engine.child("control.main:run").pid
    port = control_port(rig)
    rig.until(lambda: asyncio.run(knows_its_symbols(port)), "the venue's listing")
    seen = asyncio.run(attack(port))
    assert seen.total() == REQUESTS
    assert not {each for each in seen if isinstance(each, int) and each >= 500}, seen
    honest = asyncio.run(exchange(port, GOOD.replace(b"\r\n\r\n", CLOSE)))
    assert status_of(honest) == 200
    assert engine.child("control.main:run").pid == control, "it was never restarted"
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0, "the data path did not notice"
