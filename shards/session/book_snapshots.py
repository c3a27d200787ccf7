"""REST snapshots for the delta books of one venue: who asked, how often again, who fetches."""

import asyncio
import logging
import random

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import VenueError
from engine.base.keep_trying import Trouble
from engine.messages.streams import StreamState
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import NOT_LISTENING, DeltaBook
from shards.session.rings import ShardRings
from shards.transport.rest import VenueRest
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.kit import Venue

_log = logging.getLogger(__name__)

_SHOWN_TEXT = 300
_FIRST_DELAY_S = 0.1
_DELAY_S_MAX = 10.0
_PAUSE_S = 10.0
"""Between two snapshots that were asked for by command: each costs REST weight that all share."""


class BookSnapshots:
    """A queue of books that wait. Let a few `work` at once.

    A book that runs is renewed at least every `renew_every_s`, that it can be rebuilt for any
    moment without reading a day of changes; not all books in the same minutes.
    """

    def __init__(
        self, venue: Venue, rest: VenueRest, rings: ShardRings, renew_every_s: float
    ) -> None:
        self._call = venue.book_snapshot
        self._parse = venue.parse_book_snapshot
        self._rest = rest
        self._rings = rings
        self._trouble = Trouble(
            f"{venue.name}: book snapshots", "books that begin wait for them", Backoff(), _log
        )
        """What is said of hundreds of books that fail at once."""
        self._wanted: asyncio.Queue[DeltaBook] = asyncio.Queue()
        self._fetching: set[DeltaBook] = set()
        self._asking: set[DeltaBook] = set()
        """Books that are in the queue, or will be after their delay: each once, however often its
        socket comes back meanwhile.
        """
        self._backoff: dict[int, Backoff] = {}
        self._renew_every_s = renew_every_s
        self._fetched_s: dict[int, float] = {}
        self._renewals: dict[int, tuple[float, DeltaBook]] = {}
        """When (monotonic) a book is asked to take a new snapshot, by slot."""

    @property
    def is_wanted(self) -> bool:
        """Whether books wait for somebody to fetch theirs."""
        return not self._wanted.empty()

    def want(self, book: DeltaBook) -> None:
        """A book asks for a snapshot: at once the first time, then with growing delays."""
        self._plan_renewal(book)
        if book in self._asking:
            return
        self._asking.add(book)
        backoff = self._backoff.get(book.slot)
        if backoff is None:
            self._backoff[book.slot] = Backoff(_FIRST_DELAY_S, _DELAY_S_MAX)
            self._wanted.put_nowait(book)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(backoff.next_s(), self._wanted.put_nowait, book)

    def forget(self, slot: int) -> None:
        """Its book is wanted no more."""
        self._backoff.pop(slot, None)
        self._renewals.pop(slot, None)
        self._fetched_s.pop(slot, None)

    def renew(self, book: DeltaBook) -> None:
        """Somebody wants a fresh snapshot of a book: soon, whoever else has just had one."""
        due_s = self._fetched_s.get(book.slot, 0.0) + _PAUSE_S
        self._renewals[book.slot] = due_s, book
        self.tick(monotonic_s())

    def tick(self, now_s: float) -> None:
        """Renew the books whose time has come (monotonic); say what the others wait for."""
        for due_s, book in list(self._renewals.values()):
            if now_s >= due_s:
                self._plan_renewal(book)
                book.renew()
        if self._fetching and self._call and (why := self._rest.waits_for(self._call.pool)):
            for book in self._fetching | self._asking:
                if book.state is StreamState.SYNCING:
                    book.explain(f"snapshot: {why}")

    def _plan_renewal(self, book: DeltaBook) -> None:
        wait_s = self._renew_every_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
        self._renewals[book.slot] = monotonic_s() + wait_s, book

    async def work(self) -> None:
        """Fetch snapshots as they are asked for, until cancelled."""
        while True:
            book = await self._wanted.get()
            self._asking.discard(book)
            if book.is_settled:
                self._backoff.pop(book.slot, None)
            elif book.state in NOT_LISTENING:
                self.forget(book.slot)
            else:
                self._fetching.add(book)
                try:
                    await self._fetch(book)
                finally:
                    self._fetching.discard(book)

    async def _fetch(self, book: DeltaBook) -> None:
        assert self._call is not None
        assert self._parse is not None
        try:
            snapshot = self._parse(await self._rest.fetch(self._call, book.key.symbol))
        except (VenueError, *BAD_FRAME) as error:
            self._trouble.met(error)
            if book.state is StreamState.SYNCING:
                book.explain(f"snapshot: {error}"[:_SHOWN_TEXT])
            self.want(book)
            return
        self._trouble.over()
        self._fetched_s[book.slot] = monotonic_s()
        now_ns = wall_ns()
        book.on_snapshot(
            BookEvent(
                snapshot.seq,
                0,
                snapshot.ts_event or now_ns,
                now_ns,
                snapshot.bids,
                snapshot.asks,
                is_snapshot=True,
            )
        )
        self._rings.publish()
        if book.is_settled:
            self._backoff.pop(book.slot, None)
