"""What is settled before anything runs: configuration, preflight, schema, memory for live rows.

Imports `limits`, `database` and below.
Never knows running children.
"""
