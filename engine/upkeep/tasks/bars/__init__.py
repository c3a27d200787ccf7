"""Bars of a second and a minute, kept up to date in the tables `bar_1s` and `bar_1m`.

From marks that the writer leaves (`marks`), or as continuous aggregates (`aggregates`). Knows the
tables of sql/ that are about bars, and `trade`. Imports what a task may, never another task.
"""
