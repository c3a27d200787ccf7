"""One value of one element is nonsense: its neighbours are stored, and it is declared, once.

Every field of every message of every venue, pushed and polled, is replaced by everything that
venues were seen to send in its place. Elements are made from the messages' definitions.
"""

import os
from random import Random

import msgspec
import pytest

from engine.data.flags import GapReason
from engine.data.names import StreamKind, Transport
from shards.feeds.feed import Feed
from shards.venues.bad_frames import BAD_FRAME, reason_of
from shards.venues.json_parts import text_of
from shards.venues.kit import Feeds, PollChannel
from shards.venues.salvage import Salvage
from shards.venues.wire import TIME_MS_MAX
from tests.shards.doubles import MemoryRings, Said, spec_of
from tests.shards.venues.mutants import (
    HOSTILE,
    TIME_MS,
    Market,
    Offer,
    Place,
    is_asked_alone,
    is_read,
    is_refused,
    mutated,
    offers,
    places,
    row_count,
    sharing,
)
from tests.shards.venues.recorded import TS_RECV, UNDER_TEST
from tests.toys import venue as toy

KINDS = [
    pytest.param(name, offer, id=f"{name}-{offer.kind}-{offer.transport}")
    for name in UNDER_TEST
    for offer in offers(UNDER_TEST[name])
]
NAMED = [
    pytest.param(name, offer, id=f"{name}-{offer.kind}-{offer.transport}")
    for name in UNDER_TEST
    for offer in offers(UNDER_TEST[name])
    if offer.shape.symbol
    and (offer.transport is Transport.WS or is_asked_alone(UNDER_TEST[name], offer))
]
"""Not those whose elements are known by their place in an answer, or come in answers for all."""
ANSWERS_FOR_ALL = [
    (name, offer)
    for name in UNDER_TEST
    for offer in offers(UNDER_TEST[name])
    if offer.transport is Transport.HTTP_POLL and not is_asked_alone(UNDER_TEST[name], offer)
]
MUTANTS = int(os.environ.get("FTS_TEST_MUTANTS", "1000"))
"""How many elements a venue sends in the long test; 200,000 take some minutes."""


def written(value: object) -> bytes:
    return msgspec.json.encode(value)


def names_another(hostile: bytes | None) -> bool:
    """Whether a name is replaced by another name."""
    return text_of(hostile) is not None


def is_of_a_stranger(offer: Offer, place: Place, hostile: bytes | None) -> bool:
    """Whether it is then of another symbol, of a topic that brings all: nobody here misses it."""
    named = place == (offer.shape.symbol,) and names_another(hostile)
    return named and offer.shape.is_of_all_symbols


def accounted(market: Market, stream: Feed) -> int:
    """Rows of what was received: stored, refused, repeated, or dropped by a full ring."""
    return (
        market.rows(stream) + stream.refused_count + stream.duplicate_count + stream.dropped_count
    )


@pytest.mark.fault("N03")
@pytest.mark.parametrize(("name", "offer"), KINDS)
def test_one_bad_value_costs_its_own_element_alone(name: str, offer: Offer) -> None:
    """Between good ones, and in the same message where the venue has lists. One symbol a kind, so
    that also an element that names nobody has but one owner.
    """
    shape = offer.shape
    example = Market(name, of=offer).next_element(offer, "S0")
    for place in places(example):
        for what, hostile in HOSTILE.items():
            if is_of_a_stranger(offer, place, hostile):
                continue
            if (name, offer) in ANSWERS_FOR_ALL and place == (shape.symbol,):
                continue  # `test_one_state_in_an_answer_for_all_costs_only_its_own_row`
            market = Market(name, of=offer)
            stream = market.streams[offer.kind, offer.transport, "S0"]
            good = [market.next_element(offer, "S0")]
            market.deliver(offer, [written(good[0])], "S0")
            bad = mutated(market.next_element(offer, "S0"), place, hostile)
            good += [market.next_element(offer, "S0"), market.next_element(offer, "S0")]
            market.deliver(offer, [bad, *map(written, good[1:])], "S0")
            market.settle()
            case = (place, what)
            rows = sum(row_count(shape, written(each)) for each in good)
            gaps = market.gaps(stream)
            if is_read(shape, bad, "S0"):
                rows += row_count(shape, bad)
                assert stream.refused_count == 0, case
                is_whole = hostile == b"true" and offer.kind is StreamKind.L2_BOOK
                assert is_whole or len(gaps) == 0, "but a book that is whole now follows nothing"
            elif not is_refused(shape, bad, "S0"):
                assert stream.refused_count == len(gaps) == 0, case
            else:
                assert stream.refused_count >= shape.row_count, case
                assert gaps["reason"].tolist() == [GapReason.UNREADABLE], case
                gap = gaps[0]
                assert gap["missing"] == stream.refused_count, case
                assert gap["from_ts"] <= gap["to_ts"], case
                if shape.time:
                    at = (TIME_MS + 1002) * 1_000_000
                    assert gap["from_ts"] <= at <= gap["to_ts"], case
                if stream.ids_tell:
                    assert gap["from_seq"] == gap["to_seq"] == 1002, case
            assert market.rows(stream) == rows, case
            assert accounted(market, stream) == rows + stream.refused_count, case


@pytest.mark.fault("N03")
@pytest.mark.parametrize(("name", "offer"), NAMED)
def test_what_cannot_be_attributed_is_declared_by_all_it_may_have_been_meant_for(
    name: str, offer: Offer
) -> None:
    """Two symbols a kind, and an element that names neither: no neighbour is lost, and where no
    ids will tell each stream says that it may miss something. In an answer for both the other one
    is named, so that it is known whose the nameless is.
    """
    for what, hostile in HOSTILE.items():
        if is_of_a_stranger(offer, (offer.shape.symbol,), hostile):
            continue
        market = Market(name, symbols=2, of=offer)
        both = [market.streams[offer.kind, offer.transport, symbol] for symbol in market.symbols]
        for symbol in market.symbols:
            market.deliver(offer, [written(market.next_element(offer, symbol))], symbol)
        bad = mutated(market.next_element(offer, "S0"), (offer.shape.symbol,), hostile)
        market.deliver(offer, [bad], "S0")
        for symbol in market.symbols:
            market.deliver(offer, [written(market.next_element(offer, symbol))], symbol)
        market.settle()
        one = row_count(offer.shape, written(market.next_element(offer, "S0")))
        assert [market.rows(stream) for stream in both] == [2 * one, 2 * one], what
        if offer.transport is Transport.HTTP_POLL:
            assert [stream.refused_count for stream in both] == [offer.shape.row_count, 0], what
        else:
            assert [stream.refused_count for stream in both] == [0, 0], what
        for stream in both:
            reasons = market.gaps(stream)["reason"].tolist()
            if not stream.ids_tell and offer.transport is Transport.WS:
                assert reasons == [GapReason.UNREADABLE], what
                assert market.gaps(stream)["missing"].tolist() == [-1], what
        if both[0].ids_tell:
            assert len(market.gaps(both[0])) == 1, "the ids tell"
            assert len(market.gaps(both[1])) == 0


@pytest.mark.fault("N03")
@pytest.mark.parametrize("name", list(UNDER_TEST))
@pytest.mark.parametrize("hostile", HOSTILE)
def test_one_state_in_an_answer_for_all_costs_only_its_own_row(name: str, hostile: str) -> None:
    for offer in offers(UNDER_TEST[name]):
        channel = UNDER_TEST[name].channels[offer.kind, offer.transport]
        if not (isinstance(channel, PollChannel) and channel.batch):
            continue
        for place in places(Market(name, of=offer).next_element(offer, "S0")):
            if place == (offer.shape.symbol,) and names_another(HOSTILE[hostile]):
                continue  # to S1 it is as if the answer had left it out: `test_poller`
            market = Market(name, symbols=3, of=offer)
            streams = [market.streams[offer.kind, offer.transport, s] for s in market.symbols]
            texts = {s: written(market.next_element(offer, s)) for s in market.symbols}
            texts["S1"] = mutated(market.next_element(offer, "S1"), place, HOSTILE[hostile])
            market.answer(offer.kind, texts, alone=False)
            market.settle()
            is_good = is_read(offer.shape, texts["S1"], "S1")
            one = offer.shape.row_count
            assert [market.rows(each) for each in streams] == [one, one * is_good, one], place
            assert [each.refused_count for each in streams] == [0, one * (not is_good), 0], place
            reasons = [market.gaps(each)["reason"].tolist() for each in streams]
            assert reasons == [[], [] if is_good else [GapReason.UNREADABLE], []], place


@pytest.mark.fault("N03")
@pytest.mark.parametrize("absurd", [2**62, TIME_MS_MAX, 1])
@pytest.mark.parametrize(("name", "offer"), KINDS)
def test_an_id_or_time_of_nonsense_that_can_be_read_costs_no_neighbour(
    name: str, offer: Offer, absurd: int
) -> None:
    """What it says of itself is believed, for nobody knows better: its row is stored as it is (the
    writer's screen looks at its time). What follows is stored as well, also on the next socket.
    """
    shape = offer.shape
    for place in places(Market(name, of=offer).next_element(offer, "S0")):
        market = Market(name, of=offer)
        stream = market.streams[offer.kind, offer.transport, "S0"]
        example = market.next_element(offer, "S0")
        if type(example.get(str(place[0]))) is not int or len(place) > 1:
            continue
        texts = [written(example)]
        texts.append(mutated(market.next_element(offer, "S0"), place, b"%d" % absurd))
        texts += [written(market.next_element(offer, "S0")) for _ in range(3)]
        market.deliver(offer, texts[:3], "S0")
        stream.cut("cut")
        stream.subscribed()
        market.deliver(offer, texts[3:], "S0")
        market.settle()
        neighbours = sum(row_count(shape, text) for text in (texts[0], *texts[2:]))
        bad = row_count(shape, texts[1])
        assert market.rows(stream) >= neighbours, (place, absurd)
        assert market.rows(stream) + stream.refused_count + stream.duplicate_count == (
            neighbours + bad
        ), (place, absurd)
        if is_read(shape, texts[1], "S0") and market.rows(stream) == neighbours:
            assert stream.duplicate_count + stream.refused_count == bad, "older, or to come"


@pytest.mark.fault("N03")
@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_every_message_the_decoder_knows_has_a_shape(name: str) -> None:
    """Else what is unreadable of it would vanish. A stream may have rows of several messages."""
    venue = UNDER_TEST[name]
    pushed = [c.feed for (_, transport), c in venue.channels.items() if transport is Transport.WS]
    assert set(pushed) == {shape.feed for shape in venue.shapes}


@pytest.mark.fault("N03")
@pytest.mark.parametrize("symbol", ["S0", 'a"b', "比特币-USD", "trades.x"])
def test_a_type_that_names_the_symbol_says_whose_its_elements_are(symbol: str) -> None:
    """Of two streams the good element goes to one, which declares the bad one: the other knows that
    it misses nothing. What names a third is of nobody here, and no mixture.
    """
    double, feeds, bad_frames = MemoryRings(), Feeds(), list[tuple[str, bytes]]()
    venue = UNDER_TEST[toy.NAME]
    streams = [
        double.feed(spec_of(slot, venue.name, each, StreamKind.TRADES), venue)
        for slot, each in enumerate((symbol, "another"))
    ]
    for stream in streams:
        stream.subscribed()
        feeds.add(stream)
    decode = venue.open_decoder(feeds, Said())
    salvage = Salvage(
        venue, feeds, decode, lambda error, text: bad_frames.append((reason_of(error), text))
    )
    row = {"id": 1, "side": "buy", "time": TIME_MS, "price": "10.5", "qty": "1"}
    bad = {**row, "id": 2, "price": "NaN"}
    for owner, rows in ((symbol, [row, bad]), ("a third", [row])):
        frame = written({"type": f"trades.{owner}", "rows": rows})
        with pytest.raises(BAD_FRAME) as refused:
            decode(frame, TS_RECV)
        salvage.take(frame, TS_RECV, refused.value)
    for stream in streams:
        stream.declare_pending(TS_RECV)
    assert double.rows("trade")[["stream", "trade_id"]].tolist() == [(0, 1)]
    assert bad_frames == [("schema", written(bad)), ("not_subscribed", written(row))]
    assert [stream.refused_count for stream in streams] == [1, 0]
    assert double.rows("gap")[["stream", "missing"]].tolist() == [(0, 1)]


@pytest.mark.fault("N03")
@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_a_message_too_large_to_be_taken_apart_may_have_been_anybodys(name: str) -> None:
    """Ten megabytes in a field that nobody reads cost nothing. In one that is read nobody looks for
    whose it was: each stream without ids says that it may miss something, ids tell for themselves.
    """
    market = Market(name)
    (offer,) = (each for each in market.offers if each[:2] == (StreamKind.TRADES, Transport.WS))
    trades = market.streams[offer.kind, offer.transport, "S0"]
    huge = b'"' + b"x" * 10_000_000 + b'"'
    example = market.next_element(offer, "S0")
    market.deliver(offer, [mutated(example, ("zz",), huge)], "S0")
    assert market.rows(trades) == 1
    bad = market.next_element(offer, "S0")
    read = next(
        place for place in places(bad) if is_refused(offer.shape, mutated(bad, place, b"[]"), "S0")
    )
    market.deliver(offer, [mutated(bad, read, huge)], "S0")
    market.deliver(offer, [written(market.next_element(offer, "S0"))], "S0")
    market.settle()
    assert market.rows(trades) == 2
    assert market.connection.malformed_by_reason.total() == 1
    for (_, transport, _), stream in market.streams.items():
        reasons = market.gaps(stream)["reason"].tolist()
        if stream is trades and stream.ids_tell:
            assert reasons == [GapReason.SEQUENCE]
        elif transport is Transport.WS and not stream.ids_tell:
            assert reasons == [GapReason.UNREADABLE], stream.key
        else:
            assert reasons == []


@pytest.mark.fault("N03")
@pytest.mark.parametrize("name", list(UNDER_TEST))
@pytest.mark.whole
def test_thousands_of_mutants_among_good_elements(name: str) -> None:
    """All kinds and symbols at once, one value of every other element replaced at random, rings
    emptied at times and full at others: no exception, no neighbour lost, and every count adds up.
    """
    random = Random(MUTANTS)
    sent = 0
    while sent < MUTANTS:
        market = Market(name, symbols=3, capacity=1 << 10)
        received = dict.fromkeys(market.streams, 0)
        refused = dict.fromkeys(market.streams, 0)
        for _ in range(min(250, MUTANTS - sent)):
            offer, symbol = random.choice(market.offers), random.choice(market.symbols)
            good = written(market.next_element(offer, symbol))
            example = market.next_element(offer, symbol)
            spots = [place for place in places(example) if place != (offer.shape.symbol,)]
            hostile = random.choice(list(HOSTILE))
            bad = mutated(example, random.choice(spots), HOSTILE[hostile])
            last = written(market.next_element(offer, symbol))
            concerned = {
                (o.kind, o.transport, symbol): o.shape for o in sharing(market.offers, offer)
            }
            before = {key: market.streams[key].refused_count for key in concerned}
            market.deliver(offer, [good, bad, last], symbol)
            sent += 1
            for key, shape in concerned.items():
                for text in (good, bad, last):
                    if is_read(shape, text, symbol):
                        received[key] += row_count(shape, text)
                if is_refused(shape, bad, symbol):
                    assert market.streams[key].refused_count > before[key], (key, bad[:200])
                refused[key] += market.streams[key].refused_count - before[key]
            if random.random() < 0.1:
                market.settle()
        market.settle()
        for key, stream in market.streams.items():
            assert stream.refused_count == refused[key], key
            stored = market.rows(stream)
            assert stored + stream.dropped_count + stream.duplicate_count == received[key], key
            gaps = market.gaps(stream)
            declared = gaps["missing"][gaps["reason"] == GapReason.UNREADABLE].sum()
            assert declared == stream.refused_count, key


@pytest.mark.fault("N03")
@pytest.mark.parametrize(("name", "offer"), KINDS)
def test_what_a_full_ring_drops_is_counted_beside_what_is_refused(name: str, offer: Offer) -> None:
    """received = stored + refused + repeated + dropped."""
    market = Market(name, capacity=1 << 4, gives_snapshots=False)
    stream = market.streams[offer.kind, offer.transport, "S0"]
    received = 0
    for number in range(40):
        example = market.next_element(offer, "S0")
        received += row_count(offer.shape, written(example))
        text = mutated(example, ("zz",), HOSTILE["deep"] if number % 5 == 4 else b"1")
        market.deliver(offer, [text], "S0")
    stream.cut("over")
    assert stream.dropped_count > 0
    assert accounted(market, stream) == received
