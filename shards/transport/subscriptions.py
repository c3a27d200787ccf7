"""What a socket is to carry, and what the venue has been told of that. Pure: time is an argument.

A topic is what the venue subscribes. It carries one stream or several: of several kinds, or of all
symbols. It is subscribed with the first of them and ended with the last. The streams are the wish;
`told` is what the venue was told on the present socket, and `next_request` is the difference.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from engine.messages.streams import StreamState
from shards.feeds.feed import Feed
from shards.feeds.handover import Handover
from shards.feeds.passing.heir import Heir, LetGo
from shards.transport.hangups import Hangups
from shards.venues.kit import Feeds, SocketGroup

_REQUESTS_REMEMBERED: Final = 256


Coming = Handover | Heir
"""What takes the frames of a stream that another socket, or another process's, still delivers."""


class Request(NamedTuple):
    """Topics to subscribe, or (`ends`) to unsubscribe, in one message."""

    topics: Sequence[str]
    ends: bool = False
    is_alone: bool = False
    """Whether nothing else may be asked for in the same moment."""
    is_part: bool = False
    """Whether it is what is left of one that was refused."""


class RefusedTopics(NamedTuple):
    """The topics that a refusal is about: who waits for data shows the words, and what the venue
    certainly does not serve (`left_out`) is tried again later.
    """

    shown: Sequence[str] = ()
    left_out: Sequence[str] = ()


class Subscriptions:
    """The streams of one connection by their topics."""

    def __init__(self, group: SocketGroup, feeds: Feeds) -> None:
        self._group = group
        self._feeds = feeds
        self._topics: dict[str, dict[int, Feed]] = {}
        """By slot of each topic."""
        self._topic_of: dict[int, str] = {}
        self._told: set[str] = set()
        self._silent: set[str] = set()
        self.coming: dict[int, Coming] = {}
        """By slot: streams that another socket still delivers, until this one has joined."""
        self.going: dict[int, Handover] = {}
        """By slot: streams that another socket is about to take."""
        self._hangups = Hangups()
        self._requests: dict[int, Request] = {}
        """What the last ones were about: a refusal may name one."""
        self._request_id = 0
        self._parts: list[Sequence[str]] = []
        """Of requests that were refused; each is asked for in a message of its own."""

    @property
    def streams(self) -> Sequence[Feed]:
        """The streams of this socket; of those on their way here, the other socket's."""
        return [
            stream
            for streams in self._topics.values()
            for slot, stream in streams.items()
            if slot not in self.coming
        ]

    @property
    def served(self) -> Sequence[Feed]:
        """Those among them that are subscribed, or will be; also what comes though its topic was
        refused.
        """
        return [
            each
            for each in self.streams
            if each.state is not StreamState.FAILED
            or not self._hangups.is_left_out(self._topic(each))
        ]

    @property
    def topics(self) -> Collection[str]:
        """What is wanted."""
        return self._topics.keys()

    @property
    def count(self) -> int:
        """What the venue counts while the socket is open: also what has ended until it is told."""
        return len({*self._topics, *self._told})

    def streams_of(self, topic: str) -> Sequence[Feed]:
        """What a topic brings; not what another socket still delivers."""
        found = self._topics.get(topic, {})
        return [stream for slot, stream in found.items() if slot not in self.coming]

    def add(self, topic: str, stream: Feed, handover: Coming | None = None) -> None:
        """Carry a stream; with `handover`, another socket delivers it until that is over."""
        self._topics.setdefault(topic, {})[stream.slot] = stream
        self._topic_of[stream.slot] = topic
        self._feeds.add(stream, handover)
        if handover is not None:
            self.coming[stream.slot] = handover

    def take_over(self, stream: Feed) -> None:
        """Deliver what was expected from now on."""
        del self.coming[stream.slot]
        self._feeds.add(stream)

    def divert(self, stream: Feed, to: LetGo | None) -> None:
        """Deliver to this what still comes of a stream that is let go of; None: to the stream."""
        self._feeds.add(stream, to)

    def remove(self, stream: Feed) -> None:
        """Carry this stream no more. What of it is under way is ignored."""
        self._feeds.remove(stream)
        self.coming.pop(stream.slot, None)
        self.going.pop(stream.slot, None)
        topic = self._topic_of.pop(stream.slot, None)
        if topic is None:
            return
        del self._topics[topic][stream.slot]
        if not self._topics[topic]:
            del self._topics[topic]
            self._silent.discard(topic)
            self._hangups.forget(topic)

    def _topic(self, stream: Feed) -> str:
        return self._topic_of[stream.slot]

    def opened(self) -> None:
        """A new socket, on which nothing has been sent."""
        self._told.clear()
        self._silent.clear()
        self._parts.clear()
        self._hangups.opened()

    def ask_again(self, stream: Feed) -> None:
        """A stream stays silent. Where a repeated subscribe is refused, it is ended before: rows
        that fall between are found missing by their ids, and streams without ids have declared the
        silence.
        """
        self._silent.add(self._topic(stream))

    def next_request(self, *, is_ending: bool) -> Request | None:
        """What is to be sent next. On a socket that `is_ending` nothing is ended apart."""
        if ended := [topic for topic in self._told if self._must_end(topic, is_ending=is_ending)]:
            return Request(ended, ends=True)
        while self._parts:
            if part := list(filter(self._must_begin, self._parts[0])):
                return Request(part, is_part=True)
            del self._parts[0]
        begun = list(filter(self._must_begin, self._topics))
        begun.sort(key=self._hangups.must_go_alone)
        if begun and self._hangups.must_go_alone(begun[0]):
            return Request(begun[:1], is_alone=True)
        return Request(begun or list(self._silent)) if begun or self._silent else None

    def _must_begin(self, topic: str) -> bool:
        is_wanted = topic in self._topics and not self._hangups.is_left_out(topic)
        return is_wanted and topic not in self._told

    def _must_end(self, topic: str, *, is_ending: bool) -> bool:
        """Whether the venue is to be told that a topic is subscribed no more, for now or for good:
        what is replaced with its socket just ends.
        """
        if topic in self._topics:
            return topic in self._silent and self._group.refuses_repeats
        return not is_ending

    def send(self, request: Request, now_s: float, *, is_ending: bool) -> tuple[list[str], int]:
        """The first few topics of a request and its id, now that its turn has come. Who has come
        back, or is gone, is left as it is; there may be none left.
        """
        topics = [
            topic
            for topic in request.topics
            if (
                self._must_end(topic, is_ending=is_ending)
                if request.ends
                else topic in self._topics and not self._hangups.is_left_out(topic)
            )
        ]
        del topics[self._group.topics_per_message :]
        if not topics:
            return [], 0
        self._silent.difference_update(topics)
        if request.ends:
            self._told.difference_update(topics)
        else:
            self._told.update(topics)
            self._hangups.sent(topics, now_s)
            for slot in [slot for topic in topics for slot in self._topics[topic]]:
                if slot in self.coming:
                    self.coming[slot].subscribed(now_s)
        self._request_id += 1
        self._requests[self._request_id] = request._replace(topics=topics)
        self._requests.pop(self._request_id - _REQUESTS_REMEMBERED, None)
        return topics, self._request_id

    def pause_s(self, now_s: float) -> float:
        """Seconds until what was sent last is above suspicion."""
        return self._hangups.pause_s(now_s)

    def cleared(self, topics: Iterable[str]) -> None:
        """They were subscribed alone, and the socket lives."""
        for topic in topics:
            self._hangups.cleared(topic)

    def hung_up(self, now_s: float) -> str:
        """The venue ended the socket: the topic it did so for, once that is certain, which is left
        out for a while; else nothing.
        """
        topic = self._hangups.hung_up(now_s) if self._group.hangs_up_on_unknown else None
        return topic if topic in self._topics else ""

    def due_again(self, now_s: float) -> Sequence[Feed]:
        """Streams whose topics were left out for long enough."""
        return [each for topic in self._hangups.due_again(now_s) for each in self.streams_of(topic)]

    def refused(
        self, named: Collection[str] | None, request_id: int | None, now_s: float, *, is_sure: bool
    ) -> RefusedTopics:
        """What follows from a refusal that names these topics (None: it names nothing), or a
        request. `is_sure`: the names were not found in mere words.

        Of a request the venue takes all or nothing: what is not at fault is asked for again. Where
        a request of several topics was refused and nothing is named, its halves are, until those at
        fault are found. Of a request of one topic nothing follows but that it shows the words: what
        was asked for once more may be subscribed all the time.
        """
        if named is None:
            everybody = RefusedTopics(list(self._topics))
            return everybody if request_id is None else self._divide(request_id, now_s)
        asked = self._requests.get(request_id or 0)
        if asked is not None and not asked.ends:
            rest = [topic for topic in asked.topics if topic not in named]
            if 0 < len(rest) < len(asked.topics):
                self._send_again(request_id, rest)
        known = [topic for topic in named if topic in self._topics]
        return self._leave_out(known, now_s) if is_sure else RefusedTopics(known)

    def put_off(self, request_id: int | None) -> Sequence[str]:
        """The venue was asked too often: what it did not take is to be asked for again. Returns its
        topics. Where the request is not named, whatever brings nothing may have been refused, or
        be subscribed all the same.
        """
        if request_id is None:
            topics = [t for t in self._told if t in self._topics and not self._delivers(t)]
            self._silent.update(topics)
            return topics
        asked = self._requests.pop(request_id, Request(()))  # said twice, heeded once
        topics = [topic for topic in asked.topics if topic in self._topics]
        if asked.ends:
            self._told.update(asked.topics)
            self._silent.update(topics)
            return ()
        self._told.difference_update(topics)
        return topics

    def put_off_among(self, topics: Sequence[str]) -> list[Feed]:
        """Streams that nobody has listened to since the venue was asked for them too often."""
        streams = [each for topic in topics for each in self.streams_of(topic)]
        return [each for each in streams if each.state is StreamState.BACKOFF]

    def _delivers(self, topic: str) -> bool:
        return any(stream.has_data for stream in self.streams_of(topic))

    def _divide(self, request_id: int, now_s: float) -> RefusedTopics:
        asked = self._requests.get(request_id, Request(()))
        wanted = [topic for topic in asked.topics if topic in self._topics]
        if len(wanted) > 1 and not asked.ends:
            half = len(wanted) // 2
            self._send_again(request_id, wanted[:half], wanted[half:])
        elif asked.is_part:
            return self._leave_out(wanted, now_s)
        return RefusedTopics(wanted)

    def _send_again(self, request_id: int | None, *parts: Sequence[str]) -> None:
        self._requests.pop(request_id or 0, None)
        for part in parts:
            self._told.difference_update(part)
            self._parts.append(part)

    def _leave_out(self, topics: Sequence[str], now_s: float) -> RefusedTopics:
        """Topics that bring nothing and are refused; what delivers is subscribed, after all."""
        out = [topic for topic in topics if not self._delivers(topic)]
        for topic in out:
            self._told.discard(topic)
            self._silent.discard(topic)
            self._hangups.refused(topic, now_s)
        return RefusedTopics([topic for topic in topics if topic not in out], out)

    def missing(self, request_id: int | None, acknowledged: Collection[str]) -> Sequence[str]:
        """What a request asked for and these topics, which were acknowledged, leave out."""
        asked = self._requests.get(request_id or 0, Request((), ends=True))
        if asked.ends:
            return ()
        return [t for t in asked.topics if t in self._topics and t not in acknowledged]
