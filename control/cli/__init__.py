"""The command line, and running one engine from a terminal or a service manager.

May import every room.
Never knows SQL beyond `doctor`, nor a venue by name.
"""
