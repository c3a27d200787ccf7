"""Everything that travels between processes: commands, settings, status, and what is read from it.

Imports `data` and `base`.
Never knows how it travels.
"""
