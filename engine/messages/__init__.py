"""Everything that travels between processes: commands, settings, status, and what follows from it.

Imports `data` and `base`.
Never knows how it travels.
"""
