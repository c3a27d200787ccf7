"""One venue in one shard: begin, end, poll, snapshots, its rings.

Imports `transport` and below.
Never knows the bytes of a protocol.
"""
