"""Venues' limits shared by all processes: budgets, held limits, the desk, its clients.

Imports `process` and below.
Never knows what is spent on what.
"""
