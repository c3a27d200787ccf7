"""Market data in memory: record kinds, rings and their segments, positions, slots, where files lie.

Imports `base`.
Never knows processes, sinks, venues.
"""
