"""What an upgrade makes of the settings of now, once the code on disk has passed its trial."""

import asyncio
from pathlib import Path

import pytest

from control.cli.changes.legacy import Legacy
from control.cli.changes.renewal import OnDisk, Renewal
from engine.data.layout import open_layout
from engine.data.names import StreamKey, StreamKind
from engine.messages.settings import LogSettings
from engine.process.protocol import language
from engine.start import preflight
from engine.start.config import load
from engine.streams.wanted import Wanted, WantedStream
from engine.supervisor.spawning import SupervisorSettings

AMPLE = 10 << 30


@pytest.mark.parametrize(("free_bytes", "records"), [(AMPLE, 1 << 20), (32 << 20, 1 << 17)])
def test_rings_grow_with_the_streams_that_commands_have_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, records: int
) -> None:
    async def passed(*_: object) -> OnDisk:
        return OnDisk("0", language(Legacy))

    monkeypatch.setattr(Renewal, "_try", passed)
    monkeypatch.setattr("engine.start.preflight.ring_room", lambda _: (free_bytes, 1 << 40))
    file = tmp_path / "fts.toml"
    file.write_text("streams = []\n")
    loaded, layout = load(file, {}, tmp_path), open_layout(tmp_path)
    rings = preflight.plan_rings(loaded.config, "x", 1, AMPLE).rings
    settings = SupervisorSettings(
        layout, loaded.config, rings, [None], [], {}, LogSettings("log"), -1, 0
    )
    keys = [StreamKey("binance_linear", f"S{number}", StreamKind.TRADES) for number in range(500)]
    Wanted(layout.wanted).put([WantedStream(key) for key in keys])
    renewal = Renewal(lambda: load(file, {}, tmp_path), lambda each: each.stream_keys(), [])
    renewed = asyncio.run(renewal(settings))
    assert [each.ring for each in renewed.rings] == [each.ring for each in rings]
    found = {each.kind: each.capacity for each in renewed.rings}
    assert (found["trade"], found["book"]) == (records, 1 << 17)
