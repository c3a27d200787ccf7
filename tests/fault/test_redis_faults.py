"""A Redis in trouble while the engine runs: the light tells the truth, the database is complete."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from redis import Redis

from engine.data.layout import open_layout
from engine.process import instance
from engine.servers.valkey import PrivateValkey
from tests.flow.rig import Rig, assert_equation

MakeRig = Callable[..., Rig]
pytestmark = [pytest.mark.flow, pytest.mark.timeout(180)]


def health(rig: Rig) -> dict[str, Any]:
    """`/health/redis` of the running engine."""
    note = instance.read_note(open_layout(rig.directory / "state"))
    assert note is not None
    try:
        with urllib.request.urlopen(f"{note.control_url}/health/redis") as reply:  # noqa: S310
            body = reply.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    answer: dict[str, Any] = msgspec.json.decode(body)
    return answer


@pytest.mark.fault("N26")
@pytest.mark.fault("N40")
def test_a_full_redis_is_red_until_something_is_published_and_not_for_good(
    make_rig: MakeRig, redis_url: str, valkey: PrivateValkey
) -> None:
    rig = make_rig(redis_url=redis_url, rate="2000")
    engine = rig.start()
    engine.wait_for("control is ready")
    server = Redis.from_url(redis_url)
    rig.until(lambda: health(rig)["delivered_rows"] > 500, "rows in Redis")
    server.config_set("maxmemory", 1 << 20)
    rig.until(lambda: health(rig)["state"] == "down", "the trouble to be seen")
    seen = set()
    for _ in range(30):
        time.sleep(0.1)
        now = health(rig)
        seen.add((now["state"], now["status"]))
        assert "OOM" in now["error"]
    assert seen == {("down", "red")}, "not green for a moment"
    before = health(rig)["delivered_rows"]
    server.config_set("maxmemory", 64 << 20)
    rig.until(lambda: health(rig)["delivered_rows"] > before + 500, "publishing to go on")
    rig.until(lambda: health(rig)["status"] == "green", "the light to say so")
    server.close()
    verdict = rig.finish()
    valkey.restart()
    assert_equation(verdict)
    assert verdict.declared_missing == 0
    lines = [line for line in engine.log.splitlines() if " writer redis: " in line]
    assert len(lines) <= 6, lines
