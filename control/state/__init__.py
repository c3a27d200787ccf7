"""What control knows: the last status, health, listings.

Imports `http`, `engine` and `shards.venues`.
Never knows requests or routes.
"""
