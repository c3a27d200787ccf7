"""REST calls of one venue: budgets, deadlines, size cap, and no redirects.

A venue that refuses (`REFUSALS`) is left alone by every process, for as long as it says or as is
usual: 429 is about the pool the call belongs to, 403, 418 and 451 are about the address and all of
them. What it says in an answer of any status (`Venue.too_often`, a ban) counts the same.
"""

import asyncio
import contextlib
import logging
from typing import NoReturn

import aiohttp

from engine.base.errors import VenueError
from engine.limits.budget import REFUSALS, refusal_in_words
from engine.limits.leases import Lease, LeaseClient
from shards.transport.answers import address_of, no_json
from shards.transport.refusals import refusal_in, told_wait_s
from shards.venues.bad_frames import BAD_FRAME, reason_of
from shards.venues.budgets import REST_POLLS, spendable
from shards.venues.kit import REST_WEIGHT, RestCall, Venue, limit_of, limited_as, rest_pools_of

_log = logging.getLogger(__name__)

_TIMEOUT = aiohttp.ClientTimeout(total=15.0, sock_connect=5.0)
_MAX_BODY_BYTES = 32 << 20
_PAGES_MAX = 100
"""Of a listing: with 500 rows each, more than any venue has."""
_WORDS_BYTES = 2048
_WORDS_TIMEOUT_S = 2.0
"""Of a refusal: the status says enough."""


class VenueRest:
    """A client for one venue. Use it inside one event loop and close it."""

    def __init__(self, venue: Venue, base_url: str | None, leases: LeaseClient) -> None:
        """`base_url` is the venue's own where it is None."""
        self._venue = venue.name
        self._base_url = (base_url or venue.rest_url).rstrip("/")
        self._leases = {
            pool: Lease(leases, limited_as(venue), pool)
            for pool in (REST_POLLS, *rest_pools_of(venue))
        }
        self._used_weight_header = venue.used_weight_header
        self._too_often = venue.too_often
        self._listing = venue.listing
        self._parse_limits = venue.parse_limits
        limit = limit_of(venue, REST_WEIGHT)
        assert limit is not None, "every venue says what its calls may weigh"
        self._limit = limit
        self._weight = limit.units
        """Units that the venue allows in its window: what it announced, if that is less."""
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False)

    async def fetch(self, call: RestCall, symbol: str = "") -> bytes:
        """Return the body of a 200 reply. Raises VenueError (retriable) for anything else."""
        await self._leases[call.pool].acquire(call.weight)
        url = self._base_url + call.path.replace("{symbol}", symbol)
        body = call.body.replace("{symbol}", symbol).encode() or None
        headers = {"Content-Type": "application/json"} if body else None
        try:
            async with self._session.request(
                call.method, url, data=body, headers=headers, allow_redirects=False
            ) as reply:
                is_refused = reply.status in REFUSALS  # whatever becomes of the body
                payload = await (_read_words(reply) if is_refused else _read_capped(reply))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise VenueError(f"{self._what(call, symbol)}: {reason}") from error
        self._pass_on_used_weight(reply)
        status = reply.status if is_refused else refusal_in(payload, self._too_often)
        if status:
            self._refused(call, status, told_wait_s(reply.headers, payload))
        self._check(reply, payload, self._what(call, symbol))
        if call == self._listing.first:
            self._heed(payload)
        return payload

    async def listing(self) -> list[bytes]:
        """The pages of what the venue lists, all of them: half a listing would delist the rest.
        Raises VenueError. A call that was made already ends it: that page is there.
        """
        pages: dict[RestCall, bytes] = {}
        for first in (self._listing.first, *self._listing.others):
            await self._read_pages(first, pages)
        return list(pages.values())

    async def _read_pages(self, call: RestCall | None, pages: dict[RestCall, bytes]) -> None:
        while call is not None and call not in pages:
            if len(pages) == _PAGES_MAX:
                raise VenueError(f"{self._venue}: its listing has more than {_PAGES_MAX} pages")
            pages[call] = await self.fetch(call)
            try:
                call = self._listing.next(pages[call])
            except BAD_FRAME as error:
                reason = reason_of(error)
                raise VenueError(
                    f"{self._venue}: page {len(pages)} of its listing does not say what is next"
                    f" ({reason})"
                ) from error

    def _what(self, call: RestCall, symbol: str) -> str:
        """A call in words, without what may be secret in its address."""
        of = f" ({symbol})" if symbol else ""
        return f"{self._venue}: {call.method} {address_of(self._base_url + call.path)}{of}"

    def _refused(self, call: RestCall, status: int, told_s: float | None) -> NoReturn:
        """The venue wants to be left alone: nobody asks."""
        wait_s = self._leases[call.pool].refused(status, told_s)
        for pool in self._refused_with(call.pool, status):
            self._leases[pool].refused(status, told_s)
        words = refusal_in_words(status)
        raise VenueError(f"{self._venue}: {words}; nobody asks for {wait_s:.0f} s")

    @staticmethod
    def _check(reply: aiohttp.ClientResponse, payload: bytes, what: str) -> None:
        """Raises VenueError for what cannot be the answer."""
        instead = no_json(reply.headers.get("Content-Type", ""), payload)
        if reply.status != 200:
            text = instead or repr(payload[:200].decode("utf-8", "backslashreplace"))
            raise VenueError(f"{what}: HTTP {reply.status}: {text}")
        if instead:
            raise VenueError(f"{what} answered {instead}")

    def _refused_with(self, pool: str, status: int) -> set[str]:
        """Which pools rest as well: all of a banned address, and polls with what they draw on.
        They would pass their own pool meanwhile, and all leave at once.
        """
        if REFUSALS[status].is_of_address:
            return self._leases.keys() - {pool}
        return {REST_POLLS} if pool == REST_WEIGHT else set()

    def waits_for(self, pool: str) -> str:
        """What calls of a pool wait for before they leave; empty when none waits."""
        return self._leases[pool].wait

    def _pass_on_used_weight(self, reply: aiohttp.ClientResponse) -> None:
        text = reply.headers.get(self._used_weight_header or "", "")
        if text.isascii() and text.isdigit() and len(text) < 10:
            self._leases[REST_WEIGHT].venue_says(float(text))

    def _heed(self, listing: bytes) -> None:
        """Follow the limit that comes with the listing. Who reads the rest of it says what is
        wrong with it.
        """
        if self._parse_limits is None:
            return
        with contextlib.suppress(*BAD_FRAME):
            found = [each for each in self._parse_limits(listing) if each.pool == REST_WEIGHT]
            if found:
                window_s = self._limit.window_s
                self._weight = min(each.within(window_s) for each in (*found, self._limit))
                for pool, budget in spendable(self._weight).items():
                    self._leases[pool].announced(budget)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
        await asyncio.sleep(0)


async def _read_words(reply: aiohttp.ClientResponse) -> bytes:
    """The beginning of a refusal's body, as far as it comes soon: it may say for how long."""
    parts = bytearray()
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with asyncio.timeout(_WORDS_TIMEOUT_S):
            async for chunk in reply.content.iter_any():
                parts += chunk
                if len(parts) >= _WORDS_BYTES:
                    break
    return bytes(parts[:_WORDS_BYTES])


async def _read_capped(reply: aiohttp.ClientResponse) -> bytes:
    """Read up to the cap; a larger body is an error, not a memory problem."""
    parts = bytearray()
    async for chunk in reply.content.iter_chunked(1 << 16):
        parts += chunk
        if len(parts) > _MAX_BODY_BYTES:
            raise VenueError(f"{reply.url}: the reply is larger than {_MAX_BODY_BYTES} bytes")
    return bytes(parts)
