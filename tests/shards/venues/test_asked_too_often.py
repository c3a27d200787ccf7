"""What a venue answers to who asks too often: the usual answers are known by their status, its own
are in `tests/data/<venue>/refusals.json`, with the seconds for which nobody asks then.
"""

import asyncio
from typing import NamedTuple

import pytest
import uvloop

from engine.base.errors import VenueError
from engine.limits.leases import LeaseClient
from engine.messages.limits import LeaseGranted, LeaseRequest, LimitFeedback
from engine.messages.pipes import FromChild
from shards.transport.rest import VenueRest
from shards.venues.budgets import REST_POLLS
from shards.venues.kit import REST_WEIGHT, RestCall, Venue, rest_pools_of
from tests.shards.fake_venue import Answer, FakeVenue, serving
from tests.shards.venues.recorded import UNDER_TEST, refusals_of
from tests.waiting import until


class Refusal(NamedTuple):
    """An answer, what it means, and how long it lasts."""

    answer: Answer
    status: int
    wait_s: float


USUAL = (
    Refusal(Answer(b"null", 429), 429, 60.0),
    Refusal(Answer(b"<html>", 429, {"Retry-After": "7"}, "text/html"), 429, 7.0),
    Refusal(Answer(b"", 418), 418, 60.0),
    Refusal(Answer(b"{}", 418, {"Retry-After": "120"}), 418, 120.0),
    Refusal(Answer(b"access too frequent", 403), 403, 600.0),
)


def refusals(name: str) -> list[Refusal]:
    said = refusals_of(name)["too_often_calls"]
    own = [
        Refusal(Answer(each["body"].encode(), each["status"]), 429, each["wait_s"]) for each in said
    ]
    return [*USUAL, *own]


@pytest.mark.fault("H01")
@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_a_venue_that_is_asked_too_often_is_left_alone_for_as_long_as_it_says(name: str) -> None:
    venue = UNDER_TEST[name]

    async def body() -> None:
        async with serving() as fake:
            for refusal in refusals(name):
                await _refused(venue, fake, refusal)

    uvloop.run(body())


async def _refused(venue: Venue, fake: FakeVenue, refusal: Refusal) -> None:
    told: list[LimitFeedback] = []

    def grant(message: FromChild) -> None:
        if isinstance(message, LeaseRequest):
            loop = asyncio.get_running_loop()
            loop.call_soon(client.take, LeaseGranted(message.request_id))
        elif isinstance(message, LimitFeedback):
            told.append(message)

    client, call = LeaseClient(grant), venue.listing.first
    rest = VenueRest(venue, fake.url, client)
    path = call.path.partition("?")[0]
    fake.answer(path, refusal.answer)
    asked = fake.count(path)
    try:
        with pytest.raises(VenueError, match=f"nobody asks for {refusal.wait_s:.0f} s"):
            await rest.fetch(call)
        again = asyncio.create_task(rest.fetch(call))
        await until(lambda: "blocked" in rest.waits_for(call.pool))
        again.cancel()
        assert fake.count(path) == asked + 1, refusal
    finally:
        await rest.close()
    assert {(each.status, each.retry_after_s) for each in told} == {
        (refusal.status, refusal.wait_s)
    }
    assert {each.pool for each in told} == _resting(venue, call, refusal.status), refusal


def _resting(venue: Venue, call: RestCall, status: int) -> set[str]:
    """The pools of which nobody spends: all where it is about the address."""
    if status != 429:
        return {REST_POLLS, *rest_pools_of(venue)}
    return {call.pool, REST_POLLS} if call.pool == REST_WEIGHT else {call.pool}
