"""Redis: live rows, best effort, within its memory.

Imports `rows`.
Never knows rings, the journal, other sinks.
"""
