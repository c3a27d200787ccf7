"""Market data in memory: kinds, names, rings and their segments, positions, slots, where files lie.

Imports `base`.
Never knows processes, sinks, venues.
"""
