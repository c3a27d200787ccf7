"""What a feed declares besides rows: gaps, coverage, what came late or unreadable.

Imports nothing of the shards.
Never knows wire formats or sockets.
"""
