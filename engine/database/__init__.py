"""The one door to PostgreSQL: sessions, what its errors mean, text it cannot hold, facts, rights.

Imports `data` and `base`.
Never knows sinks, streams; tables of ours by their names alone.
"""
