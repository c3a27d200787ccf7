"""The database compared with what the simulator says it sent, kind by kind.

Imports `engine`, `shards` and the simulator.
Never knows the API.
"""
