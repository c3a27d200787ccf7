"""A stream's life: sequencing, books, gaps, handover.

Imports nothing of the shards.
Never knows wire formats or sockets.
"""
