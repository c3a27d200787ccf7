"""What every room stands on: clock, errors, files, signals, waiting, trying again, a link.

Imports nothing of ours.
Never knows anything else of the engine.
"""
