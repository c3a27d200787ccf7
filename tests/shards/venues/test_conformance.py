"""One suite for every venue: its folder in `tests/data/` holds frames and what they mean (the forms
are in `tests/shards/venues/recorded.py`). What no venue should say is in `test_hostile_frames.py`.
"""

import json
from typing import Any

import msgspec
import pytest

from engine.data.names import TELLS_THE_PAST, StreamKind, Transport
from engine.messages.settings import HeldLimitSettings, LimitSettings, VenueSettings
from engine.messages.streams import StreamState
from shards.venues import VENUES, preferred_transport
from shards.venues.bad_frames import BAD_FRAME, reason_of
from shards.venues.budgets import limits_of
from shards.venues.digits import decimals_of
from shards.venues.kit import (
    CONNECTS,
    MESSAGES,
    REST_WEIGHT,
    SOCKETS,
    Channel,
    PollChannel,
    RestCall,
    Venue,
    capabilities,
    limit_of,
    places_of,
)
from shards.venues.listing import Readings
from tests.shards.doubles import MemoryRings, spec_of
from tests.shards.venues.recorded import (
    DATA,
    TS_RECV,
    UNDER_TEST,
    bench,
    cases,
    cases_of,
    frames_of,
    parsers,
)


@pytest.mark.parametrize(("name", "case"), cases("rows"))
def test_frame_becomes_exactly_these_rows(name: str, case: dict[str, Any]) -> None:
    on = bench(name, case)
    for frame in frames_of(case):
        on.decode(frame, TS_RECV)
    rows = on.rows()
    assert [{key: row[key] for key in want} for row, want in zip(rows, case["rows"], strict=True)
            ] == case["rows"]  # fmt: skip
    assert all(row["ts_recv"] == TS_RECV and row["stream"] == 3 for row in rows)
    assert on.bad_frames == case.get("unusable", [])


@pytest.mark.parametrize(("name", "case"), cases("rows"))
def test_fields_a_venue_adds_tomorrow_change_nothing(name: str, case: dict[str, Any]) -> None:
    def with_more(value: Any) -> Any:
        if isinstance(value, dict):
            more = {"zz_new": [1, {"deep": None}], "Z9": "text"}
            return {**{key: with_more(item) for key, item in value.items()}, **more}
        if isinstance(value, list):
            return [with_more(item) for item in value]
        return value

    plain, extended = bench(name, case), bench(name, case)
    for frame in frames_of(case):
        plain.decode(frame, TS_RECV)
        extended.decode(json.dumps(with_more(json.loads(frame))).encode(), TS_RECV)
    assert plain.rows() == extended.rows()


@pytest.mark.parametrize(("name", "case"), cases("control"))
def test_frame_without_data_is_understood(name: str, case: dict[str, Any]) -> None:
    on = bench(name, case)
    on.decode(case["frame"].encode(), TS_RECV)
    assert on.talk.words == case["control"]
    assert on.rows() == []


@pytest.mark.fault("X11")
@pytest.mark.parametrize(("name", "case"), cases("error"))
def test_unusable_frame_is_refused_for_the_right_reason(name: str, case: dict[str, Any]) -> None:
    on = bench(name, case)
    with pytest.raises(BAD_FRAME) as caught:
        on.decode(case["frame"].encode(), TS_RECV)
    assert reason_of(caught.value) == case["error"]
    assert on.rows() == []


@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_every_channel_and_poll_has_frames_that_are_taken_and_frames_that_are_not(
    name: str,
) -> None:
    for offer in capabilities(UNDER_TEST[name]):
        found = [
            case for case in cases_of(name)
            if (StreamKind(case["kind"]), Transport(case.get("transport", "Ws"))) == offer
        ]  # fmt: skip
        assert any(case.get("rows") for case in found), f"no frame of {offer} with rows"
        assert any(case.get("error") for case in found), f"no frame of {offer} that is refused"


@pytest.mark.parametrize(
    ("name", "call"), [(name, call) for name in UNDER_TEST for call in parsers(name)]
)
def test_answers_are_read_as_recorded(name: str, call: str) -> None:
    """Of an instrument only the facts that are recorded."""
    body = (DATA / name / f"{call}.json").read_bytes()
    expected = json.loads((DATA / name / f"{call}.expected.json").read_text(encoding="utf-8"))
    answer = parsers(name)[call](body)
    if isinstance(answer, Readings):
        assert (answer.unreadable, answer.nameless) == ({}, 0)
        answer = answer.known
    found = msgspec.json.decode(msgspec.json.encode(answer))
    assert found.keys() == expected.keys()
    for key, facts in expected.items():
        if isinstance(facts, dict):
            assert {fact: found[key][fact] for fact in facts} == facts
            assert found[key]["venue"] == name
        else:
            assert found[key] == facts


@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_every_channel_renders_its_subscription_and_its_end_as_the_venue_documents(
    name: str,
) -> None:
    venue, rendered = UNDER_TEST[name], set()
    for case in json.loads((DATA / name / "subscriptions.json").read_text(encoding="utf-8")):
        kinds = [StreamKind(kind) for kind in case["kinds"]]
        settings = VenueSettings(book_channel=case.get("book_channel"))
        topics = [topic(venue, kind, case["symbol"], settings) for kind in kinds]
        for render, word in ((venue.subscribe, "subscribe"), (venue.unsubscribe, "unsubscribe")):
            assert [frame.decode() for frame in render(topics, case["id"])] == case[word]
        rendered.update(kinds)
    pushed = {kind for kind, transport in capabilities(venue) if transport is Transport.WS}
    assert rendered == pushed


@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_every_channel_knows_its_group_and_its_pace(name: str) -> None:
    venue = UNDER_TEST[name]
    for (_, transport), channel in venue.channels.items():
        assert channel.stale_after_s > 0
        if isinstance(channel, PollChannel):
            assert transport is Transport.HTTP_POLL
            assert channel.call or channel.batch
            assert 0 < channel.interval_s < channel.stale_after_s
        else:
            assert transport is Transport.WS
            assert channel.group in venue.groups


@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_what_tells_the_past_is_asked_for_since_a_time_by_each_stream(name: str) -> None:
    for kind, _ in capabilities(UNDER_TEST[name]):
        channel = UNDER_TEST[name].channels.get((kind, Transport.HTTP_POLL))
        if not isinstance(channel, PollChannel):
            continue
        asks = channel.call is not None and "{since}" in channel.call.path
        assert asks == (kind in TELLS_THE_PAST)
        assert channel.batch is None or "{since}" not in channel.batch.path


@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_what_users_may_choose_is_a_setting_with_a_default(name: str) -> None:
    venue = UNDER_TEST[name]
    for key, known in venue.options.items():
        assert known
        for channel in venue.channels.values():
            if isinstance(channel, Channel):
                default, *others = (
                    channel.topic("A", msgspec.convert({key: value}, VenueSettings))
                    for value in (None, *known)
                )
                assert others[0] == default, "the first is the default"


@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_there_are_symbols_to_begin_with(name: str) -> None:
    assert len(set(UNDER_TEST[name].examples)) >= 2


@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_every_limit_is_there(name: str) -> None:
    venue = UNDER_TEST[name]
    for group in venue.groups.values():
        least = min(
            group.streams_per_connection, group.topics_per_message, group.message_interval_s,
            group.idle_timeout_s, group.lifetime_s, group.ping_interval_s,
        )  # fmt: skip
        assert least > 0
        assert group.ping_interval_s < group.idle_timeout_s
    places = [limit for limit in limits_of(venue) if isinstance(limit, HeldLimitSettings)]
    assert all(limit.count > 0 for limit in places)
    budgets = [limit for limit in limits_of(venue) if isinstance(limit, LimitSettings)]
    limits = {limit.pool: limit for limit in budgets}
    assert {REST_WEIGHT, CONNECTS} <= limits.keys()
    pools = [limit.pool for limit in venue.limits]
    assert len(set(pools)) == len(pools)
    assert all(limit.budget > 0 and limit.window_s > 0 for limit in limits.values())
    for call in calls(venue):
        assert 0 < call.weight <= limits[call.pool].budget, call.path
    messages = limit_of(venue, MESSAGES)
    if messages is not None and any(group.json_ping for group in venue.groups.values()):
        sockets = places_of(venue, SOCKETS)
        assert sockets is not None, "else nobody knows how many pings there are"
        pings = max(messages.window_s / group.ping_interval_s for group in venue.groups.values())
        assert limits[MESSAGES].budget + sockets * pings <= 0.8 * messages.units
    if "rest_polls" in limits:
        assert limits["rest_polls"].budget < limits["rest_weight"].budget


def calls(venue: Venue) -> list[RestCall]:
    polls = [channel for channel in venue.channels.values() if isinstance(channel, PollChannel)]
    found = [venue.listing.first, *venue.listing.others, venue.book_snapshot]
    found += [call for poll in polls for call in (poll.call, poll.batch)]
    found += [venue.funding_intervals.call if venue.funding_intervals else None]
    return [call for call in found if call is not None]


def topic(venue: Venue, kind: StreamKind, symbol: str, settings: VenueSettings) -> str:
    channel = venue.channels[kind, Transport.WS]
    assert isinstance(channel, Channel)
    return channel.topic(symbol, settings)


def test_book_data_and_quotes_have_a_socket_category_of_their_own() -> None:
    groups = {
        kind: channel.group
        for (kind, _), channel in VENUES["binance_linear"].channels.items()
        if isinstance(channel, Channel)
    }
    assert {kind for kind, group in groups.items() if group == "public"} == {
        StreamKind.L2_BOOK, StreamKind.TICKER,
    }  # fmt: skip


def test_what_is_not_offered_is_a_failed_stream_that_says_what_is() -> None:
    double = MemoryRings()
    stream = double.feed(
        spec_of(1, kind=StreamKind.FUNDING_OPEN_INTEREST), VENUES["binance_linear"]
    )
    assert stream.state is StreamState.FAILED
    assert stream.reason == (
        "binance_linear has no FundingOpenInterest Ws; it offers Trades Ws, L2Book Ws, Ticker Ws,"
        " Funding Ws, Funding HttpPoll, OpenInterest HttpPoll, Liquidations Ws,"
        " SettledFunding HttpPoll"
    )


@pytest.mark.parametrize(
    ("venue", "kind", "transport"),
    [
        ("binance_linear", StreamKind.FUNDING, Transport.WS),
        ("binance_linear", StreamKind.OPEN_INTEREST, Transport.HTTP_POLL),
        ("binance_linear", StreamKind.FUNDING_OPEN_INTEREST, Transport.WS),
        ("hyperliquid_perp", StreamKind.FUNDING_OPEN_INTEREST, Transport.WS),
        ("unheard_of", StreamKind.OPEN_INTEREST, Transport.WS),
    ],
)
def test_a_kind_comes_by_socket_where_there_is_one(
    venue: str, kind: StreamKind, transport: Transport
) -> None:
    assert preferred_transport(venue, kind) is transport


@pytest.mark.parametrize(
    ("step", "decimals"),
    [
        ("0.10", 1),
        ("0.00100", 3),
        ("1", 0),
        ("10", 0),
        ("1e-7", 7),
        ("0.5", 1),
        ("1E2", 0),
        ("1e-99999999999999999999", 15),
    ],
)
def test_decimals_of_a_step(step: str, decimals: int) -> None:
    assert decimals_of(step) == decimals
