"""Fetches what venues list over REST, within their budgets.

The budget is the supervisor's to give (a lease, shared by all processes); a client's own limiter
stays behind it, so that a supervisor that does not answer cannot turn into a ban.
"""

from collections.abc import Awaitable, Callable, Mapping

from engine.settings import VenueSettings
from shards.rest import VenueRest
from shards.venues.spec import Venue

_REST_SHARE = 0.1
"""Of a venue's weight a minute: the shards need the rest."""

Lease = Callable[[str, str, float], Awaitable[None]]


class VenueListings:
    """REST clients, one a venue, made at first use. Close it in the loop that used it."""

    def __init__(self, settings: Mapping[str, VenueSettings], lease: Lease) -> None:
        self._settings = settings
        self._lease = lease
        self._clients: dict[str, VenueRest] = {}

    async def fetch(self, venue: Venue) -> bytes:
        """The venue's own listing. Raises VenueError."""
        await self._lease(venue.name, "rest_weight", float(venue.instruments.weight))
        if venue.name not in self._clients:
            override = self._settings.get(venue.name, VenueSettings())
            self._clients[venue.name] = VenueRest(
                venue.name,
                override.rest_url or venue.rest_url,
                max(venue.rest_weight_per_minute * _REST_SHARE, venue.instruments.weight),
            )
        return await self._clients[venue.name].fetch(venue.instruments)

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.close()
