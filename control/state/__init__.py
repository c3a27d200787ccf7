"""What control knows: the last status, health, listings, gaps, how it did lately.

Imports `http`, `engine` and `shards.venues`.
Never knows requests or routes.
"""
