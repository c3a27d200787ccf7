"""Fetches what venues list over REST, within the budgets that all processes share."""

from collections.abc import Mapping

from engine.limits.leases import LeaseClient
from engine.messages.settings import VenueSettings
from shards.transport.rest import VenueRest
from shards.venues.budgets import with_limits
from shards.venues.kit import Venue


class ListingFetch:
    """REST clients, one a venue, made at first use. Close it in the loop that used it."""

    def __init__(self, settings: Mapping[str, VenueSettings], leases: LeaseClient) -> None:
        self._settings = settings
        self._leases = leases
        self._clients: dict[str, VenueRest] = {}

    async def fetch(self, venue: Venue) -> list[bytes]:
        """The pages of the venue's own listing. Raises VenueError."""
        if venue.name not in self._clients:
            override = self._settings.get(venue.name, VenueSettings())
            tuned = with_limits(venue, override.limits)
            self._clients[venue.name] = VenueRest(tuned, override.rest_url, self._leases)
        return await self._clients[venue.name].listing()

    def waits_for(self, venue: Venue) -> str:
        """What a fetch waits for before it leaves; empty when none waits."""
        client = self._clients.get(venue.name)
        return client.waits_for(venue.listing.first.pool) if client is not None else ""

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.close()
