"""What venues let their clients spend and hold, what was used of it, and refusals.

A venue's limits are a table of `VenueLimit`s, which is data of its encoder. `LimitBook` counts
every use of them, refused ones too and whether or not a simulator enforces them, and keeps of each
the highest use within its window: the ledger of limits. Who exceeds one gets what the venue does
(`Then`) only where limits are enforced, or where it is a rule of the protocol (`is_rule`). All
clients of a simulator are at one address.

Imports `engine.base`.
Never knows a venue.
"""

from shards.simulator.core.limits.rest_gate import TOLERATED_VIOLATIONS, RestGate
from shards.simulator.core.limits.table import (
    CONNECTS,
    MESSAGES,
    MINUTE_NS,
    NAME_CHARS,
    REQUESTS,
    SECOND_NS,
    SOCKETS,
    SUBSCRIPTIONS,
    TOPICS,
    WEIGHT,
    ClockMeter,
    Meter,
    Per,
    Then,
    VenueLimit,
    Window,
    now_ms,
)
from shards.simulator.core.limits.use import Holder, LimitBook, Pools

__all__ = [
    "CONNECTS",
    "MESSAGES",
    "MINUTE_NS",
    "NAME_CHARS",
    "REQUESTS",
    "SECOND_NS",
    "SOCKETS",
    "SUBSCRIPTIONS",
    "TOLERATED_VIOLATIONS",
    "TOPICS",
    "WEIGHT",
    "ClockMeter",
    "Holder",
    "LimitBook",
    "Meter",
    "Per",
    "Pools",
    "RestGate",
    "Then",
    "VenueLimit",
    "Window",
    "now_ms",
]  # fmt: skip
