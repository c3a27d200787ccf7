"""Sockets, subscriptions, silence, polls and REST calls.

Imports `venues`, `feeds`.
Never knows records, books or a venue by name.
"""
