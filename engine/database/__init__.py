"""The one door to PostgreSQL: sessions, what its errors mean, text it cannot hold, facts about it.

Imports `data` and `base`.
Never knows tables of ours, sinks, streams.
"""
