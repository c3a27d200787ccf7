"""A stream that passes from one process to the next: what is kept meanwhile, and what is told.

Imports the feeds' own modules.
Never knows sockets or who decides that a stream passes.
"""
