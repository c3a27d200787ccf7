"""The supervisor: starts, watches and stops children, and carries commands to them.

Imports `servers` and below, never `writer`.
Never knows rows or venues.
"""
