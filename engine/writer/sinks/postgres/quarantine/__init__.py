"""Rows that their table refused: put aside with their gap, found again, stored or dropped.

Uses the tables and sessions of the sink. Must not know where rows come from.
"""
