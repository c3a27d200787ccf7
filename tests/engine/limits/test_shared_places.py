"""Two venues of one server in one process: what either holds, the other cannot."""

import asyncio
from pathlib import Path

from engine.limits.lease_desk import LeaseDesk
from engine.limits.leases import HeldPlaces, LeaseClient
from engine.messages.limits import PlacesWanted
from engine.messages.settings import HeldLimitSettings

LIMIT = HeldLimitSettings("acme_perp", "ws_sockets", 3)


def holder(client: LeaseClient, name: str) -> HeldPlaces:
    return HeldPlaces(client, LIMIT.venue, LIMIT.pool, LIMIT.count, lambda: None, name)


def test_each_hears_of_its_own_places_and_both_together_never_have_more(tmp_path: Path) -> None:
    async def body() -> None:
        desk = LeaseDesk([LIMIT], tmp_path / "limits.json", lambda _, answer: client.take(answer))

        def send(message: object) -> None:
            assert isinstance(message, PlacesWanted)
            desk.want("shard-0", message)

        client = LeaseClient(send)
        perp, spot = holder(client, "acme_perp"), holder(client, "acme_spot")
        perp.want(2)
        spot.want(2)
        assert (perp.count, spot.count) == (2, 1)
        assert (perp.is_refused, spot.is_refused) == (False, True)
        perp.want(1)
        assert (perp.count, spot.count) == (1, 2)
        (report,) = desk.reports()
        assert (report.used, report.waiting_count) == (3, 0)
        desk.client_ended("shard-0")
        (report,) = desk.reports()
        assert report.used == 0
        await desk.close()

    asyncio.run(body())
