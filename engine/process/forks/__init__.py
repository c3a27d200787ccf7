"""Children as copies of one process that has imported everything.

A child that is started by itself imports for half a second of CPU. A copy is there in milliseconds,
and shares with its siblings the memory that nobody has written to. `server` is the process that is
copied, as the supervisor has it; `place` is what it does, and what becomes of a copy.
"""
