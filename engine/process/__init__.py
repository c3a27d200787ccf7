"""A process of the engine: birth, pipe, logs, metrics, instance lock, and the keeper of a child.

Imports `messages` and below.
Never knows streams.
"""
