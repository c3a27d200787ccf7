"""The configuration's file: where its keys stand, all its faults, and what a new one changes.

Imports `engine.start.config`, `messages` and below.
Never knows running processes.
"""
