"""The simulated venues: their messages and routes.

Imports `core`.
Never knows the rest of `shards`: a judge does not use the decoder of the accused.
"""
