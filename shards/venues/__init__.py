"""The venues. Adding one: its file or folder (`shards.venues.kit` says what is in it), its line
here, its folder in `tests/data/`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from engine.data.names import StreamKey, StreamKind, Transport
from engine.messages.settings import HeldLimitSettings, LimitSettings, VenueSettings
from shards.venues import (
    budgets,
    bybit,
    coinbase,
    deribit,
    hyperliquid,
    kit,
    kraken_futures,
    kraken_spot,
    okx,
)
from shards.venues.binance import inverse as binance_inverse
from shards.venues.binance import linear as binance_linear
from shards.venues.binance import spot as binance_spot
from shards.venues.coinbase import exchange
from shards.venues.kit import Venue

VENUES: dict[str, Venue] = {
    venue.name: venue
    for venue in (
        binance_linear.VENUE,
        hyperliquid.PERP,
        deribit.VENUE,
        kraken_spot.VENUE,
        kraken_futures.VENUE,
        okx.VENUE,
        coinbase.VENUE,
        exchange.VENUE,
        bybit.LINEAR,
        bybit.INVERSE,
        bybit.SPOT,
        binance_spot.VENUE,
        binance_inverse.VENUE,
        hyperliquid.BUILDER,
        hyperliquid.SPOT,
    )
}

USUAL: Final = (binance_linear.VENUE.name, hyperliquid.PERP.name)
"""What is collected where nobody has configured streams."""


def preferred_transport(venue: str, kind: StreamKind) -> Transport:
    """How a kind comes from a venue (which may be unknown) when nobody said how."""
    return kit.preferred_transport(VENUES[venue], kind) if venue in VENUES else Transport.WS


def venue_limits(
    settings: Mapping[str, VenueSettings] | None = None,
) -> list[LimitSettings | HeldLimitSettings]:
    """The limits that all processes of an engine share, each once. Venues with common limits are
    overridden together.
    """
    tuned = {name: each.limits for name, each in (settings or {}).items()}
    found = (
        limit
        for name, venue in VENUES.items()
        for limit in budgets.limits_of(budgets.with_limits(venue, tuned.get(name, {})))
    )
    return list(dict.fromkeys(found))


def raised_limits(settings: Mapping[str, VenueSettings]) -> list[str]:
    """A warning for each limit above what its venue is known to allow."""
    return [
        f"venues.{name}.limits.{text}; it may ban this address"
        for name, each in settings.items()
        if name in VENUES
        for text in budgets.raised(VENUES[name], each.limits)
    ]


def socket_count(streams: Iterable[StreamKey], settings: Mapping[str, VenueSettings]) -> int:
    """How many WebSockets these streams take at most."""
    pushed = Counter(key.venue for key in streams if key.transport is Transport.WS)
    return sum(
        math.ceil(count / _streams_per_socket(VENUES[name], settings.get(name)))
        + len(VENUES[name].groups)
        for name, count in pushed.items()
        if name in VENUES
    )


def _streams_per_socket(venue: Venue, settings: VenueSettings | None) -> int:
    configured = settings.streams_per_connection if settings else None
    return configured or min(group.streams_per_connection for group in venue.groups.values())
