"""Lines of the log: the events' names, their two forms, what is folded, what they are written to.

Imports `messages` and below.
Never knows the logging of a process, which is `engine.process.logs`.
"""
