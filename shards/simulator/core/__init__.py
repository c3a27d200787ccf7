"""The market, its ledger and the sessions: the same for every simulated venue.

Imports `engine.base`.
Never knows a venue, nor the rest of `shards`.
"""
