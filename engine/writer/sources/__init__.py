"""Ring and journal as one sequence: where it stands, what it lost, what was carried.

Imports nothing of the writer.
Never knows a sink by name.
"""
