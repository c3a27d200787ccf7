"""Streams as they are wanted, placed, run and described.

Imports `start` and below.
Never knows sockets or rows.
"""
