"""What a stream that ends still owes: rows a full ring refused are declared whatever comes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from engine.data.flags import GapReason, Side
from engine.data.layout import open_layout
from engine.messages.settings import VenueSettings
from shards.feeds.trades import ContiguousTrades
from shards.session.venue_session import VenueSession
from shards.venues import VENUES
from tests.shards.doubles import MemoryRings, free_leases, spec_of

SECOND_NS = 1_000_000_000
NOWHERE = VenueSettings(rest_url="http://127.0.0.1:9", ws_url="ws://127.0.0.1:9")


@pytest.mark.fault("S07")
@pytest.mark.parametrize(
    "end", [lambda session: session.stop([3]), lambda session: None], ids=["removed", "shard ends"]
)
def test_rows_a_full_ring_refused_are_declared_though_it_stays_full(
    tmp_path: Path, end: Callable[[VenueSession], None]
) -> None:
    async def main() -> None:
        double = MemoryRings(capacity=64)
        session = VenueSession(
            VENUES["binance_linear"], NOWHERE, double.rings,
            open_layout(tmp_path / "state", tmp_path), lambda _: None, free_leases(),
        )  # fmt: skip
        session.start([spec_of(3)])
        (feed,) = session.streams
        assert isinstance(feed, ContiguousTrades)
        feed.subscribed()
        for trade_id in range(1000, 1100):
            time_ns = trade_id * SECOND_NS
            feed.on_trade(trade_id, Side.BUY, time_ns, time_ns, 1.0, 1.0)
        assert feed.row_count == 64
        end(session)
        await session.close()
        (gap,) = double.rows("gap")
        assert (gap["from_seq"], gap["to_seq"], gap["missing"]) == (1064, 1099, 36)
        assert gap["reason"] == GapReason.RING_FULL

    uvloop.run(main())
