"""The only place that reads clocks, so that tests can tell time."""

from time import monotonic, monotonic_ns, time_ns

__all__ = ["monotonic_ns", "monotonic_s", "wall_ns"]

wall_ns = time_ns
"""Wall clock, int64 nanoseconds since 1970-01-01 UTC. Stamps records; never measures intervals."""

monotonic_s = monotonic
"""Monotonic clock in seconds: intervals, deadlines, backoff."""
