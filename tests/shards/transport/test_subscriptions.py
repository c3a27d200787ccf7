"""What is asked for next, without a socket and without a clock."""

import dataclasses

from shards.feeds.feed import Feed
from shards.feeds.trades import ContiguousTrades
from shards.transport.subscriptions import RefusedTopics, Request, Subscriptions
from shards.venues import VENUES
from shards.venues.kit import Feeds, SocketGroup
from tests.shards.doubles import MemoryRings, spec_of

GROUP = dataclasses.replace(VENUES["binance_linear"].groups["market"], topics_per_message=3)


class Bench:
    """Topics `t0`, `t1`, … with a stream each."""

    def __init__(self, count: int, group: SocketGroup = GROUP) -> None:
        double = MemoryRings()
        self.known = Subscriptions(group, Feeds())
        self.streams: list[Feed] = []
        for slot in range(count):
            spec = spec_of(slot, symbol=f"S{slot}")
            stream = ContiguousTrades(spec, double.rings["trade"], double.gaps, None)
            stream.subscribed()
            self.streams.append(stream)
            self.known.add(f"t{slot}", stream)

    def send(self, now_s: float = 0.0) -> list[str]:
        """Send what is next; its topics, an ended one as `-t0`."""
        request = self.known.next_request(is_ending=False)
        if request is None:
            return []
        topics, _ = self.known.send(request, now_s, is_ending=False)
        return [f"-{topic}" if request.ends else topic for topic in topics]


def test_what_does_not_fit_into_a_message_follows_in_the_next() -> None:
    bench = Bench(4)
    assert [bench.send() for _ in range(3)] == [["t0", "t1", "t2"], ["t3"], []]
    bench.known.remove(bench.streams[1])
    assert [bench.send(), bench.send()] == [["-t1"], []]
    bench.known.opened()
    assert bench.send() == ["t0", "t2", "t3"], "a new socket was told nothing"


def test_on_a_socket_that_is_about_to_end_nothing_is_ended_apart() -> None:
    bench = Bench(1)
    bench.send()
    bench.known.remove(bench.streams[0])
    assert bench.known.next_request(is_ending=True) is None
    assert bench.known.next_request(is_ending=False) == Request(["t0"], ends=True)


def test_a_refused_repetition_is_ended_first_where_the_venue_wants_that() -> None:
    for refuses, told in ((False, [["t0"], []]), (True, [["-t0"], ["t0"]])):
        bench = Bench(1, dataclasses.replace(GROUP, refuses_repeats=refuses))
        bench.send()
        bench.known.ask_again(bench.streams[0])
        assert [bench.send(), bench.send()] == told


def test_halves_of_a_refused_request_are_asked_for_until_one_topic_is_left() -> None:
    bench = Bench(3)
    assert bench.send() == ["t0", "t1", "t2"]
    known = bench.known
    assert known.refused(None, 1, 0.0, is_sure=False) == RefusedTopics(["t0", "t1", "t2"])
    assert known.refused(None, 1, 0.0, is_sure=False) == RefusedTopics([]), (
        "said twice, heeded once"
    )
    assert [bench.send(), bench.send()] == [["t0"], ["t1", "t2"]]
    assert known.refused(None, 2, 0.0, is_sure=False) == RefusedTopics([], ["t0"])
    bench.streams[0].failed("refused")
    assert bench.send() == []
    assert [each.slot for each in known.served] == [1, 2]
    assert [each.slot for each in known.due_again(11.0)] == [0]
    assert bench.send(11.0) == ["t0"]


def test_a_request_of_one_topic_that_is_refused_may_be_a_repetition_and_is_left_alone() -> None:
    bench = Bench(1)
    bench.send()
    assert bench.known.refused(None, 1, 0.0, is_sure=False) == RefusedTopics(["t0"])
    assert bench.send() == []


def test_who_is_removed_meanwhile_is_not_asked_for_again() -> None:
    bench = Bench(3)
    bench.send()
    bench.known.refused(["t1"], 1, 0.0, is_sure=True)
    bench.known.remove(bench.streams[0])
    assert bench.send() == ["t2"]
    assert bench.send() == []


def test_of_what_was_asked_for_too_often_all_is_asked_for_again() -> None:
    bench = Bench(5)
    assert [bench.send(), bench.send()] == [["t0", "t1", "t2"], ["t3", "t4"]]
    bench.known.remove(bench.streams[4])
    assert bench.known.put_off(2) == ["t3"]
    assert not bench.known.put_off(2), "said twice, heeded once"
    assert bench.send() == ["-t4"]
    assert not bench.known.put_off(3), "and an end is said once more"
    assert [bench.send(), bench.send(), bench.send()] == [["-t4"], ["t3"], []]


def test_where_no_request_is_named_whatever_brings_nothing_may_have_been_refused() -> None:
    bench = Bench(3, dataclasses.replace(GROUP, refuses_repeats=True))
    bench.send()
    bench.streams[1].delivers()
    assert sorted(bench.known.put_off(None)) == ["t0", "t2"]
    assert [sorted(bench.send()), sorted(bench.send())] == [["-t0", "-t2"], ["t0", "t2"]]
