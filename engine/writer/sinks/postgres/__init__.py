"""PostgreSQL: every row exactly once, its tables, partitions, gaps, coverage and quarantine.

Imports `rows` and `engine.database`.
Never knows rings, the journal, other sinks.
"""
