"""What is settled before anything runs: configuration, preflight, schema, memory of Redis.

Imports `limits`, `database` and below.
Never knows running children.
"""
