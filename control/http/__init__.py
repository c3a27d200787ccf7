"""The outside of any API: deadlines, gate, tokens, requests, errors.

Imports `engine`.
Never knows streams or venues.
"""
