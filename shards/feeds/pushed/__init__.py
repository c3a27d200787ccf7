"""Books whose snapshot and deltas come on one topic, and how venues chain them.

Imports nothing of the shards.
Never knows wire formats or sockets.
"""
