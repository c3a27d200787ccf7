"""The private PostgreSQL and Valkey: their homes, settings, processes and keeper.

Imports `streams` and below.
Never knows streams.
"""
